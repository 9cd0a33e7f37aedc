"""Sprite sheets and animations read back: what the atlas promises lies there, and every frame is what came in."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from torch import Tensor

Save = Callable[..., Any]
PROMPT, WORKFLOW = {"1": {"class_type": "KSampler", "inputs": {"text": "狐"}}}, {"nodes": []}
FPS = 12.0


@pytest.fixture
def save(node_classes: dict[str, Any]) -> Save:
    def call(name: str, **inputs: Any) -> Any:
        node = node_classes[f"Diaphane{name}"].PREPARE_CLASS_CLONE(None)
        node.hidden.prompt, node.hidden.extra_pnginfo = PROMPT, {"workflow": WORKFLOW}
        return node.EXECUTE_NORMALIZED(**inputs)

    return call


def path_of(file: dict[str, str], base_directory: Path) -> Path:
    return base_directory / "output" / file["subfolder"] / file["filename"]


def atlas_of(file: dict[str, str], base_directory: Path) -> dict[str, Any]:
    return json.loads(path_of(file, base_directory).with_suffix(".json").read_text(encoding="utf-8"))


def to_bytes(image: Tensor) -> np.ndarray:
    return (image * 255 + 0.5).to(torch.uint8).numpy()


# --- sheets ----------------------------------------------------------------------------------------------------------------------------


def sprites() -> list[Tensor]:
    """Objects of their own colours in larger, transparent pictures: a batch of two and single ones of other sizes."""
    pictures = []
    for index, (height, width, top, left) in enumerate(((30, 40, 5, 7), (30, 40, 0, 0), (64, 16, 10, 3), (9, 50, 1, 1), (20, 20, 4, 9))):
        picture = torch.zeros(1, height, width, 4)
        picture[:, top : height - 3, left : width - 2] = torch.tensor((0.2 * index, 1.0 - 0.2 * index, 0.4, 1.0))
        pictures.append(picture)
    return [torch.cat(pictures[:2]), *pictures[2:]]


def sheet_inputs(**settings: Any) -> dict[str, Any]:
    usual = {"filename_prefix": "sprites/hero", "layout": "grid", "columns": 0, "padding": 2, "trim": True, "power_of_two": False}
    return {"images": sprites(), "names": [""], **{key: [value] for key, value in {**usual, "bleed": True, **settings}.items()}}


@pytest.mark.parametrize("settings", [{}, {"columns": 2}, {"layout": "packed"}, {"layout": "packed", "power_of_two": True, "padding": 5}])
def test_the_atlas_says_where_each_sprite_is(save: Save, base_directory: Path, settings: dict[str, Any]) -> None:
    output = save("SaveSheet", **sheet_inputs(**settings))
    [image_file] = output.ui["images"]
    with Image.open(path_of(image_file, base_directory)) as image:
        assert json.loads(image.info["prompt"]) == PROMPT and json.loads(image.info["workflow"]) == WORKFLOW
        pixels = np.array(image)
    assert np.array_equal(pixels, to_bytes(output.result[0][0]))
    atlas = atlas_of(image_file, base_directory)
    meta = atlas["meta"]
    assert (meta["image"], meta["format"], meta["scale"]) == (image_file["filename"], "RGBA8888", "1")
    assert (meta["size"]["h"], meta["size"]["w"]) == pixels.shape[:2]
    if settings.get("power_of_two"):
        assert all(side & (side - 1) == 0 for side in pixels.shape[:2])

    pictures = [picture for batch in sprites() for picture in batch]
    assert list(atlas["frames"]) == [f"hero_{index:02}" for index in range(5)]
    for picture, entry in zip(pictures, atlas["frames"].values(), strict=True):
        frame, source = entry["frame"], entry["spriteSourceSize"]
        assert entry["sourceSize"] == {"w": picture.shape[1], "h": picture.shape[0]} and entry["rotated"] is False
        assert (source["w"], source["h"]) == (frame["w"], frame["h"])
        assert entry["trimmed"] == (settings.get("layout") == "packed")
        whole = np.zeros((*picture.shape[:2], 4), np.uint8)
        part = pixels[frame["y"] : frame["y"] + frame["h"], frame["x"] : frame["x"] + frame["w"]]
        whole[source["y"] : source["y"] + source["h"], source["x"] : source["x"] + source["w"]] = part
        whole[whole[..., 3] == 0] = 0  # colour that is bled
        assert np.array_equal(whole, to_bytes(picture))


def test_colour_goes_on_beyond_the_edges(save: Save) -> None:
    for bleed in (True, False):
        [sheet] = save("SaveSheet", **sheet_inputs(layout="packed", padding=4, bleed=bleed)).result
        alpha = sheet[0, ..., 3]
        beside = (alpha[:, 1:] == 0) & (alpha[:, :-1] == 1)  # just right of an edge
        difference = (sheet[0, :, 1:, :3] - sheet[0, :, :-1, :3]).abs().amax(dim=-1)[beside]
        assert (difference < 0.02).all() if bleed else (difference > 0.3).all()


def test_sprites_are_named_by_lines_or_by_a_list_of_prompts(save: Save, base_directory: Path) -> None:
    def names(given: list[str]) -> list[str]:
        [file] = save("SaveSheet", **{**sheet_inputs(), "names": given}).ui["images"]
        return list(atlas_of(file, base_directory)["frames"])

    assert names(["fox\n\nbear \n"]) == ["fox", "hero_01", "bear", "hero_03", "hero_04"]
    prompts = ["a fox,\n red", "a fox, red", "x" * 300, "狐\0", ""]
    assert names(["a_02\na\na\n"]) == ["a_02", "a", "a_03", "hero_03", "hero_04"]
    assert names(prompts) == ["a fox, red", "a fox, red_01", "x" * 60, "狐", "hero_04"]


def test_a_sheet_that_cannot_be_says_so(save: Save) -> None:
    for name in ("images", "columns", "names"):
        with pytest.raises(Exception, match=f"{name} got nothing. Check the node"):
            save("SaveSheet", **{**sheet_inputs(), name: []})
    with pytest.raises(Exception, match="16388x44 pixels; 16384 a side .* Save fewer pictures"):
        save("SaveSheet", **{**sheet_inputs(columns=1), "images": [torch.zeros(1, 40, 16384, 4)]})


def test_sheet_and_atlas_appear_together_or_not_at_all(
    save: Save, pack: ModuleType, base_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sys.modules[f"{pack.__name__}.lib_layerdiffuse.comfyui.files.output_files"]
    replace, refused = os.replace, []

    def refuse(source: Path, target: Path) -> None:
        if target.suffix in refused:
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", refuse)
    for suffix in (".png", ".json"):
        refused[:] = [suffix]
        with pytest.raises(Exception, match="could not be saved .*Permission denied"):
            save("SaveSheet", **sheet_inputs(filename_prefix="refused/sheet"))
        assert not list((base_directory / "output" / "refused").iterdir())


# --- animations ------------------------------------------------------------------------------------------------------------------------


def moving() -> Tensor:
    """A soft disc that moves, stands still, turns translucent and vanishes; nothing of it may stay where it was."""
    y, x = torch.meshgrid(torch.arange(45.0), torch.arange(61.0), indexing="ij")
    frames = []
    for centre, opacity in ((10, 1.0), (20, 1.0), (20, 1.0), (20, 1.0), (30, 0.5), (40, 0.3), (40, 0.0), (25, 1.0)):
        alpha = ((12.5 - torch.hypot(x - centre, y - 22)) / 3).clamp(0.0, 1.0) * opacity
        frames.append(torch.stack((x / 60, y / 44, torch.full_like(x, 0.3), alpha), dim=-1))
    return torch.stack(frames)


def animation(save: Save, base_directory: Path, images: Tensor, form: str, **settings: Any) -> Path:
    inputs = {"filename_prefix": "moving/disc", "format": form, "fps": FPS, "loop": 0, "quality": 100, **settings}
    output = save("SaveAnimation", images=images, **inputs)
    assert output.ui["animated"] == (True,)
    [file] = output.ui["images"]
    return path_of(file, base_directory)


def played(path: Path) -> list[np.ndarray]:
    """What is seen at each frame's time."""
    seen = []
    with Image.open(path) as image:
        for frame in ImageSequence.Iterator(image):
            pixels = np.array(frame.convert("RGBA"))  # loads the frame, whose duration is known then
            seen += [pixels] * round(frame.info["duration"] * FPS / 1000)
    return seen


@pytest.mark.parametrize(("form", "quality"), [("APNG", 100), ("WebP", 100), ("WebP", 80)])
def test_moving_pictures_have_every_frame_and_its_alpha(save: Save, base_directory: Path, form: str, quality: int) -> None:
    path = animation(save, base_directory, moving(), form, quality=quality)
    expected = to_bytes(moving())
    for frame, theirs in zip(expected, played(path), strict=True):
        assert np.array_equal(frame[..., 3], theirs[..., 3])
        off = np.abs(frame[..., :3].astype(int) - theirs[..., :3]) * (frame[..., 3:] / 255)
        assert off.max() == 0 if quality == 100 else off.mean() < 1
    with Image.open(path) as image:
        assert image.info["loop"] == 0
        texts = image.info if form == "APNG" else dict(text.split(":", 1) for text in image.getexif().values())
        assert json.loads(texts["prompt"]) == PROMPT and json.loads(texts["workflow"]) == WORKFLOW


def test_moving_pictures_may_stop(save: Save, base_directory: Path) -> None:
    for form in ("APNG", "WebP"):
        with Image.open(animation(save, base_directory, moving(), form, loop=3)) as image:
            assert image.info["loop"] == 3


@pytest.mark.parametrize(("quality", "alpha_error", "colour_error"), [(100, 1, 3.0), (80, 12, 4.0)])
def test_films_have_alpha(save: Save, base_directory: Path, quality: int, alpha_error: int, colour_error: float) -> None:
    images = torch.where(moving()[..., 3:] > 0, moving(), torch.tensor((0.0, 1.0, 0.0, 0.0)))  # the worst colour where nothing is
    path = animation(save, base_directory, images, "WebM", quality=quality)
    with av.open(path) as container:
        texts = {key.lower(): text for key, text in container.metadata.items()}
        assert json.loads(texts["prompt"]) == PROMPT and json.loads(texts["workflow"]) == WORKFLOW
        [stream] = container.streams
        decoder = av.CodecContext.create("libvpx-vp9", "r")  # FFmpeg's own shows no alpha
        shown = [frame for packet in container.demux(stream) for frame in decoder.decode(packet if packet.size else None)]
    assert [round(float(frame.pts * stream.time_base) * FPS) for frame in shown] == list(range(len(images)))
    assert {frame.colorspace for frame in shown} == {av.video.reformatter.Colorspace.ITU709}
    for frame, theirs in zip(to_bytes(images).astype(int), shown, strict=True):
        pixels = theirs.reformat(format="rgba", src_colorspace="ITU709").to_ndarray()
        assert np.abs(frame[..., 3] - pixels[..., 3]).max() <= alpha_error
        off = np.abs(frame[..., :3] - pixels[..., :3]).mean(axis=-1)
        assert (off * frame[..., 3]).sum() <= colour_error * frame[..., 3].sum()


@pytest.mark.parametrize("missing", ["av", "encoder"])
def test_says_what_a_film_needs(save: Save, base_directory: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    def unknown(name: str, *_: Any) -> None:
        raise av.codec.codec.UnknownCodecError(name)

    if missing == "av":
        monkeypatch.setitem(sys.modules, "av", None)
    else:
        monkeypatch.setattr(av.codec, "Codec", unknown)
    with pytest.raises(Exception, match="package av with the encoder libvpx-vp9, which is missing here. .* set format to WebP or APNG"):
        animation(save, base_directory, moving(), "WebM", filename_prefix="without/film")
    assert not list((base_directory / "output" / "without").iterdir())


@pytest.mark.parametrize("form", ["APNG", "WebP", "WebM"])
def test_one_frame_of_one_pixel_is_saved(save: Save, base_directory: Path, form: str) -> None:
    inputs = {"filename_prefix": "tiny", "format": form, "fps": FPS, "loop": 0, "quality": 100}
    output = save("SaveAnimation", images=torch.ones(1, 1, 1, 3), **inputs)
    assert path_of(output.ui["images"][0], base_directory).stat().st_size > 0
    assert any("connect a batch" in text for text in output.ui["text"])


def test_webp_is_not_larger_than_it_can_be(save: Save, base_directory: Path) -> None:
    with pytest.raises(Exception, match="at most 16383 pixels a side, got 16384x1. Set format to APNG"):
        animation(save, base_directory, torch.zeros(2, 1, 16384, 4), "WebP")
