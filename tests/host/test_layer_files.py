"""Layered files open again with the right layers: PSD by psd-tools, OpenRaster by its specification, PNG by Pillow."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from psd_tools import PSDImage
from psd_tools.constants import Resource
from torch import Tensor

from dev import comfyui

WORKFLOW = {"prompt": {"1": {"class_type": "KSampler", "inputs": {"text": 'a "fox" & <hound>, 狐'}}}, "workflow": {"nodes": []}}
# From the specification's list; anything else is an extension.
BASELINE = {f"svg:{name}" for name in ("src-over", "multiply", "screen", "overlay", "darken", "lighten", "color-dodge", "color-burn")}
BASELINE |= {f"svg:{name}" for name in ("hard-light", "soft-light", "difference", "color", "luminosity", "hue", "saturation", "plus")}
GRAIN = {"grain extract", "grain merge"}  # which Photoshop has not
KRITA = GRAIN | {"exclusion", "linear burn", "vivid light", "linear light", "pin light", "hard mix", "subtract", "divide"}


@pytest.fixture(scope="module")
def parts(pack: ModuleType) -> Any:
    """The pack's modules, as it was imported."""
    modules = sys.modules

    class Parts:
        composite = modules[f"{pack.__name__}.lib_layerdiffuse.pixels.composite"]
        blend = modules[f"{pack.__name__}.lib_layerdiffuse.pixels.blend"]
        stack = modules[f"{pack.__name__}.lib_layerdiffuse.pixels.layer_stack"]
        save = modules[f"{pack.__name__}.lib_layerdiffuse.comfyui.files.save_layers"]
        files = modules[f"{pack.__name__}.lib_layerdiffuse.comfyui.files.output_files"]

    return Parts


@pytest.fixture
def stack(parts: Any) -> Any:
    """A layer per blend mode over an opaque background, within and beyond the canvas, named in several scripts."""
    layer = parts.composite.Layer
    layers = [layer(picture(48, 64, 0)[..., :3], name="ground")]
    for index, mode in enumerate(parts.blend.BLENDS):
        place = {"x": 7 * index - 12, "y": 30 - 4 * index, "visible": index != 16}
        layers.append(layer(picture(20, 30, index + 1), name=f"{mode} é 狐 <&>", mode=mode, opacity=(index + 3.3) / 40, **place))
    return parts.composite.Layers(48, 64, tuple(layers))


def picture(height: int, width: int, seed: int, batch: int = 1) -> Tensor:
    return torch.randint(0, 256, (batch, height, width, 4), generator=torch.Generator().manual_seed(seed)) / 255


def to_bytes(image: Tensor) -> np.ndarray:
    return (image * 255).round().to(torch.uint8).numpy()


@pytest.fixture
def saved(parts: Any, base_directory: Path) -> Callable[..., list[Path]]:
    def save(layers: Any, form: str, prefix: str, metadata: dict[str, Any] | None = None) -> list[Path]:
        texts = {key: json.dumps(value) for key, value in (metadata or {}).items()}
        results = parts.save.save_layers(layers, form, prefix, texts)
        listed = [result for kind in results.values() for result in kind if result["type"] == "output"]
        return [base_directory / "output" / result["subfolder"] / result["filename"] for result in listed]

    return save


def test_psd_opens_with_the_same_layers(stack: Any, saved: Callable[..., list[Path]]) -> None:
    [path] = saved(stack, "PSD", "psd/all", WORKFLOW)
    document = PSDImage.open(path)
    assert document.size == (64, 48) and path.suffix == ".psd"
    for ours, theirs in zip(stack.layers, document, strict=True):
        assert (theirs.name, theirs.left, theirs.top) == (ours.name, ours.x, ours.y)
        mode = theirs.blend_mode.name.lower().replace("_", " ").replace("color", "colour").replace("linear dodge", "add")
        assert mode == ("normal" if ours.mode in GRAIN else ours.mode)
        assert (theirs.opacity, theirs.visible) == (round(ours.opacity * 255), ours.visible)
        pixels = np.array(theirs.topil())
        assert np.array_equal(pixels[..., : ours.image.shape[-1]], to_bytes(ours.image[0]))
    flat = to_bytes(stack.flatten()[0])
    assert np.array_equal(np.array(document.topil().convert("RGB")), flat)
    theirs = np.array(document.composite(ignore_preview=True).convert("RGB")).astype(float)
    assert np.abs(theirs - flat).mean() < 1  # 8-bit opacities


def test_psd_keeps_transparency_and_metadata(parts: Any, saved: Callable[..., list[Path]]) -> None:
    layers = parts.composite.Layers(20, 30, (parts.composite.Layer(picture(20, 30, 5), name="alone"),))
    [path] = saved(layers, "PSD", "psd/transparent", WORKFLOW)
    document = PSDImage.open(path)
    flat, merged = to_bytes(layers.flatten()[0]).astype(int), np.array(document.topil()).astype(int)
    assert np.array_equal(merged[..., 3], flat[..., 3])
    assert np.abs((merged - flat)[..., :3] * flat[..., 3:]).max() <= 1.5 * 255  # it is stored on white
    packet = document.image_resources.get_data(Resource.XMP_METADATA)
    root = ElementTree.fromstring(re.sub(rb"<\?xpacket.*?\?>", b"", packet).strip())
    texts = {element.tag.rpartition("}")[2]: element.text for element in root.iter() if element.text and element.text.strip()}
    assert {key: json.loads(text or "") for key, text in texts.items()} == WORKFLOW


def test_openraster_follows_its_specification(stack: Any, parts: Any, saved: Callable[..., list[Path]]) -> None:
    [path] = saved(stack, "OpenRaster", "ora/all", WORKFLOW)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        entries = archive.infolist()
        assert (entries[0].filename, entries[0].compress_type, archive.read("mimetype")) == (
            "mimetype",
            zipfile.ZIP_STORED,
            b"image/openraster",
        )
        assert path.read_bytes()[30:54] == b"mimetypeimage/openraster"  # where `file` and browsers look
        assert all(entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries)
        image = ElementTree.fromstring(archive.read("stack.xml"))
        assert image.tag == "image" and (image.get("w"), image.get("h")) == ("64", "48") and image.get("version")
        [root] = image
        assert root.tag == "stack"
        for ours, theirs in zip(reversed(stack.layers), root, strict=True):
            assert theirs.tag == "layer" and theirs.get("name") == ours.name
            assert theirs.get("visibility") == ("visible" if ours.visible else "hidden")
            assert (int(theirs.attrib["x"]), int(theirs.attrib["y"])) == (ours.x, ours.y)
            assert float(theirs.attrib["opacity"]) == pytest.approx(ours.opacity)
            assert theirs.get("composite-op") in BASELINE or ours.mode in KRITA
            assert np.array_equal(np.array(png(archive, theirs.attrib["src"])), to_bytes(ours.image[0]))
        names = {entry.filename for entry in entries}
        assert names - {layer.attrib["src"] for layer in root} == {"mimetype", "stack.xml", "mergedimage.png", "Thumbnails/thumbnail.png"}
        merged, thumbnail = png(archive, "mergedimage.png"), png(archive, "Thumbnails/thumbnail.png")
    assert np.array_equal(np.array(merged), to_bytes(stack.flatten()[0]))
    assert {key: json.loads(text) for key, text in merged.info.items()} == WORKFLOW
    assert thumbnail.size == (64, 48)  # never enlarged
    operations = [layer.get("composite-op") for layer in root]
    assert len(set(operations)) == len(parts.blend.BLENDS)


def test_thumbnails_are_small(parts: Any, saved: Callable[..., list[Path]]) -> None:
    layers = parts.composite.Layers(300, 600, (parts.composite.Layer(picture(300, 600, 5)),))
    [path] = saved(layers, "OpenRaster", "ora/large")
    with zipfile.ZipFile(path) as archive:
        assert png(archive, "Thumbnails/thumbnail.png").size == (256, 128)


def png(archive: zipfile.ZipFile, name: str) -> Image.Image:
    image = Image.open(BytesIO(archive.read(name)))
    image.load()
    return image


def test_pngs_are_numbered_and_know_their_place(stack: Any, saved: Callable[..., list[Path]]) -> None:
    paths = saved(stack, "PNG", "pngs/all", WORKFLOW)
    assert [path.name for path in paths[:2]] == ["all_00001_01.png", "all_00001_02.png"]
    for path, layer in zip(paths, stack.layers, strict=True):
        with Image.open(path) as image:
            assert np.array_equal(np.array(image), to_bytes(layer.image[0]))
            assert image.info["Title"] == layer.name and json.loads(image.info["prompt"]) == WORKFLOW["prompt"]
            place = {
                "x": layer.x,
                "y": layer.y,
                "width": 64,
                "height": 48,
                "mode": layer.mode,
                "opacity": layer.opacity,
                "visible": layer.visible,
            }
            assert json.loads(image.info["layer"]) == place
    assert [path.name for path in saved(stack, "PNG", "pngs/all")][0] == "all_00002_01.png"


@pytest.mark.parametrize("form", ["PSD", "OpenRaster"])
def test_previews_bring_the_workflow(parts: Any, base_directory: Path, form: str) -> None:
    layers = parts.composite.Layers(8, 9, (parts.composite.Layer(picture(8, 9, 1)),))
    [preview] = parts.save.save_layers(layers, form, f"preview_{form}", {"workflow": "{}"})["images"]
    with Image.open(base_directory / "temp" / preview["subfolder"] / preview["filename"]) as image:
        assert image.info == {"workflow": "{}"} and image.size == (9, 8)


@pytest.mark.parametrize("form", ["PSD", "OpenRaster", "PNG"])
def test_the_node_shows_each_layer_in_its_place_under_its_name(parts: Any, base_directory: Path, form: str) -> None:
    """As ComfyUI's layer editor opens them: pictures of one size, whose file names are the layers' names."""
    layer = parts.composite.Layer
    pictures = (
        layer(picture(8, 9, 1)[..., :3], name="ground"),
        layer(picture(3, 4, 2), name="fox", x=5, y=-1, opacity=0.5, mode="multiply"),
        layer(picture(8, 9, 3), name="Fox", visible=False),
        layer(picture(2, 2, 4), name="fox", x=7, y=6),
        layer(picture(2, 2, 5), name=' 狐/..\\é:"? '),
        layer(picture(2, 2, 6), name="x" * 300),
        layer(picture(2, 2, 7), name="AUX"),
        layer(picture(2, 2, 8), name="console"),
    )
    found = parts.save.save_layers(parts.composite.Layers(8, 9, pictures), form, f"shown_{form}", {"workflow": "{}"})
    names = [item["filename"].removesuffix(".png") for item in found["images"]]
    assert names == ["ground", "fox", "Fox (hidden)", "fox (2)", "狐__._é___", "x" * 200, "_AUX", "console"]
    assert {item["type"] for item in found["images"]} == {"temp"} and {item["type"] for item in found["files"]} == {"output"}
    for item, one in zip(found["images"], pictures, strict=True):
        with Image.open(base_directory / "temp" / item["subfolder"] / item["filename"]) as image:
            assert image.size == (9, 8) and image.info == {"workflow": "{}"}
            expected = torch.zeros(8 + 8, 9 + 8, 4)
            source = torch.cat((one.image, torch.ones(1, *one.image.shape[1:3], 1)), dim=-1)[0, ..., :4].clone()
            source[..., 3] *= one.opacity
            expected[4 + one.y :, 4 + one.x :][: source.shape[0], : source.shape[1]] = source
            seen = np.array(image.convert("RGBA")).astype(int)
            wanted = to_bytes(expected[4:12, 4:13]).astype(int)
            assert np.abs((seen - wanted)[wanted[..., 3] > 0]).max() <= 1 and not seen[wanted[..., 3] == 0][:, 3].any()


def test_large_layers_are_shown_reduced_to_one_size(parts: Any, base_directory: Path) -> None:
    layer = parts.composite.Layer
    layers = parts.composite.Layers(8, 4096, (layer(picture(8, 4096, 1)), layer(picture(3, 4, 2), x=4000)))
    found = parts.save.save_layers(layers, "PNG", "reduced", {})["images"]
    sizes = [Image.open(base_directory / "temp" / item["subfolder"] / item["filename"]).size for item in found]
    assert sizes == [(2048, 4)] * 2


@pytest.mark.parametrize("form", ["PSD", "OpenRaster", "PNG"])
def test_batches_are_files_of_their_own(parts: Any, saved: Callable[..., list[Path]], form: str) -> None:
    layer = parts.composite.Layer
    layers = parts.composite.Layers(8, 8, (layer(picture(8, 8, 1)), layer(picture(8, 8, 2, batch=3))))
    paths = saved(layers, form, f"batch_{form}/%batch_num%_")
    assert len(paths) == len(set(paths)) == (6 if form == "PNG" else 3)
    assert all(path.is_file() for path in paths)


@pytest.mark.parametrize("form", ["PSD", "PNG"])
def test_a_layer_farther_away_than_files_hold_is_refused(parts: Any, saved: Callable[..., list[Path]], form: str) -> None:
    far = parts.composite.Layer(picture(2, 2, 1), name="fox", y=-(10**12))
    with pytest.raises(Exception, match="fox lies at x 0, y -1e\\+12: no file holds that"):
        saved(parts.composite.Layers(8, 8, (far,)), form, f"far_{form}")


@pytest.mark.parametrize("form", ["PSD", "OpenRaster", "PNG"])
def test_nothing_is_left_of_a_file_that_could_not_be_written(
    stack: Any, parts: Any, saved: Callable[..., list[Path]], base_directory: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(parts.files.os, "replace", full)
    with pytest.raises(Exception, match="could not be saved .*No space"):
        saved(stack, form, f"full_{form}/picture")
    assert not list((base_directory / "output" / f"full_{form}").iterdir())


def test_says_what_a_psd_needs(stack: Any, pack: ModuleType, saved: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, f"{pack.__name__}.lib_layerdiffuse.documents.psd", raising=False)
    monkeypatch.setitem(sys.modules, "psd_tools.psd", None)
    with pytest.raises(Exception, match="psd-tools, but psd_tools.psd is missing. Install .* set format to OpenRaster"):
        saved(stack, "PSD", "psd/without")


def test_files_stay_in_the_output_folder(stack: Any, saved: Callable[..., list[Path]], base_directory: Path) -> None:
    for prefix in ("../outside", "/tmp/outside", "a/../../outside"):
        with pytest.raises(Exception, match="outside the output folder"):
            saved(stack, "PSD", prefix)
    assert not list(base_directory.glob("outside*"))


def test_metadata_is_left_out_if_the_host_says_so(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parts.files.workflow_metadata({"1": {}}, {"workflow": [1]}) == {"prompt": '{"1": {}}', "workflow": "[1]"}
    assert parts.files.workflow_metadata(None, None) == {}
    monkeypatch.setattr(parts.files.args, "disable_metadata", True)
    assert parts.files.workflow_metadata({"1": {}}, {"workflow": [1]}) == {}


def test_every_layer_gets_a_name_that_files_can_hold(parts: Any) -> None:
    layer = parts.composite.Layer
    pictures = (layer(picture(4, 4, 1)[..., :3]), layer(picture(4, 4, 2), name="fox"), layer(picture(4, 4, 3)), layer(picture(4, 4, 4)))
    layers = parts.stack.named(parts.composite.Layers(4, 4, pictures), ["", " ", "a\x00b\x1b"])
    assert [layer.name for layer in layers.layers] == ["Background", "fox", "ab", "Layer 4"]


MEMORY = """
import resource, sys, time
sys.path.insert(0, {root!r})
import torch
from pathlib import Path
from lib_layerdiffuse.documents.bytes import flat_bytes
from lib_layerdiffuse.documents.openraster import write_openraster
from lib_layerdiffuse.documents.psd import write_psd
from lib_layerdiffuse.pixels.composite import Layer, Layers
side = {side}
soft = torch.rand(1, side, side // 16, 4).repeat_interleave(16, dim=2)
modes = ["normal", "multiply", "add", "screen", "normal"] * 2
layers = Layers(side, side, tuple(Layer(soft, mode=mode) for mode in modes))
layers.one(0).flatten(0, 64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.time()
flat = flat_bytes(layers)
with Path({path!r}).open("w+b") as file:
    (write_psd if {form!r} == "PSD" else write_openraster)(file, layers, flat, {{}})
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.time() - start)
"""


@pytest.mark.full
@pytest.mark.parametrize("form", ["PSD", "OpenRaster"])
def test_ten_large_layers_take_no_more_memory_than_three(tmp_path: Path, form: str) -> None:
    if sys.platform == "win32":
        pytest.skip("optional: Windows has no resource module")
    script = MEMORY.format(root=str(comfyui.ROOT), side=4096, path=str(tmp_path / "large"), form=form)
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    before, after, _ = map(float, answer.stdout.split())
    assert after - before < 3 * 4096 * 4096 * 16 / 1024, answer.stdout  # KiB
