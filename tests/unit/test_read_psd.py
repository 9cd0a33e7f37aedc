"""Photoshop documents are read as Photoshop means them: depths, compressions, colours, groups, masks, clipping; other writers', too."""

# pyright: reportMissingImports=false
from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from psd_tools import PSDImage
from psd_tools.constants import BlendMode

from lib_layerdiffuse.documents.bytes import flat_bytes
from lib_layerdiffuse.documents.openraster import write_openraster
from lib_layerdiffuse.documents.psd import MODES, write_psd
from lib_layerdiffuse.documents.read_openraster import read_openraster
from lib_layerdiffuse.documents.read_psd import read_psd
from lib_layerdiffuse.documents.tree import APART, GROUPS, MERGE
from lib_layerdiffuse.pixels import composite
from tests.unit.photoshop import RAW, RLE, ZIP, ZIP_PREDICTED, Layer, document, group

AG_PSD = Path(__file__).with_name("ag_psd")
SIZE = (6, 9)


def plane(seed: int, size: tuple[int, int] = SIZE, depth: int = 8) -> np.ndarray:
    steps = 65535 if depth == 16 else 255
    return np.random.default_rng(seed).integers(0, steps + 1, size) / steps


def solid(values: tuple[float, ...], size: tuple[int, int] = SIZE) -> dict[int, np.ndarray]:
    """Red, green, blue and, if there is a fourth value, alpha."""
    return {(index if index < 3 else -1): np.full(size, value) for index, value in enumerate(values)}


def read(data: bytes, groups: str = APART) -> tuple[composite.Layers, str]:
    opened = read_psd(BytesIO(data))
    return opened.layers(groups), "\n".join(opened.notes.lines())


def flat(layers: composite.Layers) -> np.ndarray:
    return layers.flatten()[0].numpy()


# --- what is in a file --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("compression", [RAW, RLE, ZIP, ZIP_PREDICTED])
@pytest.mark.parametrize("depth", [8, 16, 32])
def test_every_depth_and_compression(depth: int, compression: int, version: int) -> None:
    channels = {index: plane(index + 1, (5, 7), depth) for index in (0, 1, 2, -1)}
    data = document([Layer(channels, "fox 狐", at=(-2, 3))], SIZE, depth, compression=compression, version=version)
    layers, said = read(data)
    [layer] = layers.layers
    assert (layers.height, layers.width, layer.name, layer.y, layer.x) == (*SIZE, "fox 狐", -2, 3)
    expected = np.stack([channels[index] for index in (0, 1, 2, -1)], axis=-1)
    if depth == 32:  # linear light
        colour = expected[..., :3]
        expected[..., :3] = np.where(colour <= 0.0031308, colour * 12.92, 1.055 * colour ** (1 / 2.4) - 0.055)
        assert "linear light" in said
    assert np.abs(layer.image[0].numpy() - expected).max() < (1e-7 if depth < 32 else 1e-6)


def test_a_picture_without_alpha_stays_opaque() -> None:
    layers, said = read(document([Layer(solid((0.2, 0.4, 0.6)), "Background")], SIZE))
    assert layers.layers[0].image.shape == (1, *SIZE, 3) and not said


def test_colour_modes() -> None:
    grey, cyan, magenta, yellow, black = (plane(seed) for seed in range(5))
    layers, _ = read(document([Layer({0: grey})], SIZE, mode=1, flat=[grey]))
    assert np.abs(flat(layers) - grey[..., None]).max() < 1e-6

    ink = {0: cyan, 1: magenta, 2: yellow, 3: black}
    layers, said = read(document([Layer(ink)], SIZE, mode=4, flat=[*ink.values()]))
    assert np.abs(flat(layers) - np.stack((cyan, magenta, yellow), axis=-1) * black[..., None]).max() < 1e-6
    assert said == "Colours are brought to sRGB from: CMYK without a profile."

    # Lab of sRGB's red, green and blue primaries (Lindbloom), and of white.
    lab = np.array([[54.29, 80.80, 69.89], [87.82, -79.27, 80.99], [29.57, 68.30, -112.03], [100.0, 0.0, 0.0]])
    for depth, whole in ((8, 255.0), (16, 65535 / 256)):
        values = np.stack([lab[:, 0] / 100, *((lab[:, channel] + 128) / whole for channel in (1, 2))])[:, None]
        layers, said = read(document([Layer(dict(enumerate(values)))], (1, 4), depth, mode=9, flat=[*values]))
        expected = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])
        assert np.abs(flat(layers)[0] - expected).max() < (0.05 if depth == 8 else 0.01), depth
        assert "from: Lab" in said


def ink_profile() -> bytes:
    """An ICC profile of ink whose colour is grey: Lab lightness 100 without cyan, 50 with it, whatever the others are (ICC.1:2001-04)."""
    table = b"".join(bytes([128 if corner >= 8 else 255, 128, 128]) for corner in range(16))  # of two values of each ink
    ramp = bytes(range(256))
    lut = struct.pack(">4s4xBBBx9i", b"mft1", 4, 3, 2, *(65536 * (index % 4 == 0) for index in range(9))) + 4 * ramp + table + 3 * ramp
    description = struct.pack(">4s4xI", b"desc", 4) + b"ink\0" + bytes(79)
    white = struct.pack(">4s4x3i", b"XYZ ", *(round(65536 * value) for value in (0.9642, 1.0, 0.8249)))
    tags, data = b"", b""
    for name, content in ((b"desc", description), (b"wtpt", white), (b"A2B0", lut)):
        tags += struct.pack(">4sII", name, 128 + 4 + 3 * 12 + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    form = ">I4xI4s4s4s12x4s28x3i"
    header = struct.pack(form, 132 + len(tags) + len(data), 0x02400000, b"prtr", b"CMYK", b"Lab ", b"acsp", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", 3) + tags + data


def test_ink_goes_by_the_profile_of_its_document() -> None:
    full, none = np.zeros(SIZE), np.ones(SIZE)  # a file holds the paper that is left
    for ink, grey in (({0: full, 1: none, 2: none, 3: none}, 119), ({0: none, 1: full, 2: full, 3: full}, 255)):
        layers, said = read(document([Layer(ink)], SIZE, mode=4, flat=[*ink.values()], profile=ink_profile()))
        assert np.abs(flat(layers) * 255 - grey).max() <= 1.5
        assert said == "Colours are brought to sRGB from: ink."


def test_profiles_are_said() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    _, said = read(document([Layer(solid((0.5, 0.5, 0.5)))], SIZE, profile=profile))
    assert "another profile than sRGB" in said and "XYZ" in said
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert read(document([Layer(solid((0.5, 0.5, 0.5)))], SIZE, profile=srgb))[1] == ""


def test_documents_without_layers() -> None:
    red, green, blue, alpha = (plane(seed) for seed in range(4))
    for compression in (RAW, RLE, ZIP):
        layers, said = read(document([], SIZE, compression=compression, flat=[red, green, blue, alpha]))
        assert np.abs(layers.layers[0].image[0].numpy() - np.stack((red, green, blue, alpha), axis=-1)).max() < 1e-6
    assert "There are no layers in it" in said and "fourth channel" in said

    palette = np.random.default_rng(1).integers(0, 256, (3, 256), np.uint8)
    index = plane(7)
    layers, _ = read(document([], SIZE, mode=2, flat=[index], palette=palette.tobytes()))
    assert np.abs(flat(layers) * 255 - palette[:, np.round(index * 255).astype(int)].transpose(1, 2, 0)).max() < 1e-3

    bits = (plane(8) > 0.5).astype(float)
    layers, _ = read(document([], SIZE, depth=1, mode=0, compression=RLE, flat=[bits]))
    assert np.array_equal(flat(layers), bits[..., None].repeat(3, axis=-1))


# --- masks, clipping, groups --------------------------------------------------------------------------------------------------------------

RED, GREEN, BLUE = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
OFF, HAS_SETTINGS = 2, 16


@pytest.mark.parametrize(
    ("outside", "flags", "settings", "shows"),
    [
        (0, 0, b"", lambda mask: mask),
        (255, 0, b"", lambda mask: np.where(mask < 0, 1, mask)),
        (0, HAS_SETTINGS, bytes([1, 102, 0, 0]), lambda mask: 0.6 + 0.4 * np.maximum(mask, 0)),  # density 40 %
        (0, OFF, b"", lambda mask: np.ones_like(mask)),
    ],
    ids=["black outside", "white outside", "density", "off"],
)
def test_masks(outside: int, flags: int, settings: bytes, shows: Any) -> None:
    """Larger than the layer on one side, smaller on the other."""
    mask, inside = plane(3, (4, 5)), np.full(SIZE, -1.0)
    inside[0:3, 0:4] = mask[1:, 1:]
    layer = Layer(solid((*RED, 0.5)), mask=(-1, -1, mask, outside, flags, settings))
    [found] = read(document([layer], SIZE))[0].layers
    expected = shows(np.where(inside < 0, -1.0 if outside else 0.0, inside)) * 128 / 255
    assert np.abs(found.image[0, ..., 3].numpy() - expected).max() < 1e-6


def test_a_mask_of_pixels_and_one_of_a_path_are_one() -> None:
    """Channel -3 is both of them together, and its place follows that of -2."""
    both, pixels = np.full(SIZE, 0.2), np.full((2, 2), 0.9)
    layer = Layer({**solid((*RED, 1.0)), -3: both}, mask=(0, 0, pixels, 0, 0, struct.pack(">BB4i", 0, 255, 0, 0, *SIZE)))
    [found] = read(document([layer], SIZE))[0].layers
    assert np.abs(found.image[0, ..., 3].numpy() - 0.2).max() < 1e-6


def test_clipping() -> None:
    """Two layers clipped to a soft one, over a background: as Photoshop means it when merged, nearly so when taken apart."""
    alpha = plane(1)
    base = Layer({**solid(GREEN), -1: alpha}, "base", opacity=204)
    above = [Layer(solid((*RED, 0.6)), "one", clipped=True), Layer(solid((*BLUE, 0.2)), "two", mode=b"scrn", clipped=True)]
    ground = Layer(solid((0.2, 0.2, 0.2)), "ground")
    data = document([ground, base, *above, Layer(solid((*RED, 0.0)), "not clipped")], SIZE)

    colour = np.array([0.6, 0.4, 0.0])  # red over green
    colour = colour + 0.2 * np.array([0.0, 0.0, 1.0])  # blue, screened
    a = 0.8 * alpha[..., None]
    expected = 0.2 * (1 - a) + colour * a
    merged, said = read(data, MERGE)
    assert [layer.name for layer in merged.layers] == ["ground", "base", "not clipped"] and not said
    assert np.abs(flat(merged) - expected).max() < 2 / 255

    apart, said = read(data)
    assert [layer.name for layer in apart.layers] == ["ground", "base", "one", "two", "not clipped"]
    assert "edges differ a little (merge groups to keep them): one, two" in said
    assert np.abs(apart.layers[2].image[0, ..., 3].numpy() - 0.6 * 0.8 * alpha).max() < 2 / 255
    solid_base = Layer({**solid(GREEN), -1: (alpha > 0.5).astype(float)}, "base")
    apart, said = read(document([ground, solid_base, *above], SIZE))
    assert np.abs(flat(apart) - np.where(alpha[..., None] > 0.5, colour, 0.2)).max() < 2 / 255 and not said


def test_groups() -> None:
    ground = Layer(solid((0.5, 0.5, 0.5)), "ground")
    inner = [Layer(solid((*RED, 1.0), (3, 9)), "upper"), Layer(solid((*BLUE, 0.4), (3, 9)), "lower", at=(3, 0))]
    everything = [ground, *group("folder", inner, b"mul ", opacity=102)]
    data = document(everything, SIZE)
    expected = np.full((*SIZE, 3), 0.5)
    expected[:3] = 0.5 * 0.6 + np.array([0.5, 0, 0]) * 0.4  # multiplied, 40 %
    expected[3:] = 0.5 * 0.84 + np.array([0, 0, 0.5]) * 0.16
    for groups, names in ((APART, ["ground", "upper", "lower"]), (MERGE, ["ground", "folder"])):
        layers, said = read(data, groups)
        assert [layer.name for layer in layers.layers] == names
        assert np.abs(flat(layers) - expected).max() < 1 / 255
    assert "The blend mode of a group" in read(data)[1] and "The opacity of a group" in read(data)[1] and not said

    hidden, _ = read(document([ground, *group("folder", inner, hidden=True)], SIZE))
    assert [layer.visible for layer in hidden.layers] == [True, False, False]
    assert np.abs(flat(hidden) - 0.5).max() < 2 / 255


def test_folders_in_folders_that_only_keep_order() -> None:
    """What passes through changes nothing; a mask of a folder is that of each layer in it."""
    layers = [Layer(solid((*RED, 1.0)), "multiplied", mode=b"mul ")]
    ground = Layer(solid((0.5, 1.0, 1.0)), "ground")
    mask = np.zeros(SIZE)
    mask[:, :4] = 1.0
    outer = group("outer", group("inner", layers), mask=(0, 0, mask, 0, 0, b""))
    apart, said = read(document([ground, *outer], SIZE))
    assert [layer.name for layer in apart.layers] == ["ground", "multiplied"] and not said
    expected = np.where(mask[..., None] > 0, [0.5, 0, 0], [0.5, 1, 1])
    assert np.abs(flat(apart) - expected).max() < 2 / 255
    assert "Merged without what is below the group" in read(document([ground, *outer], SIZE), MERGE)[1]


def test_a_layer_that_is_one_colour_fills_the_canvas() -> None:
    colour = b"".join(struct.pack(">8sd", name, value) for name, value in ((b"Rd  doub", 255), (b"Grn doub", 51), (b"Bl  doub", 0)))
    mask = plane(2)
    layers = [Layer({}, "fill", blocks=[(b"SoCo", colour)], mask=(0, 0, mask, 0, 0, b""))]
    [found] = read(document(layers, SIZE))[0].layers
    assert np.abs(found.image[0].numpy() - np.dstack((np.full(SIZE, 1.0), np.full(SIZE, 0.2), np.zeros(SIZE), mask))).max() < 1e-6
    shape = Layer({}, "shape", blocks=[(b"SoCo", colour), (b"vmsk", bytes(8))])
    assert "left out (adjustments, gradients, patterns, empty layers): shape" in read(document([*layers, shape], SIZE))[1]


def test_what_is_not_kept_is_said() -> None:
    effects = struct.pack(">I", 0) + b"masterFXSwitchbool"
    layers = [
        Layer(solid((*RED, 1.0)), "odd", mode=b"diss", blocks=[(b"lfx2", effects + b"\1"), (b"iOpa", bytes([51, 0, 0, 0]))]),
        Layer(solid((*RED, 1.0)), "plain", blocks=[(b"lfx2", effects + b"\0")]),
        Layer({}, "levels", blocks=[(b"levl", bytes(8))]),
    ]
    found, said = read(document(layers, SIZE))
    assert [layer.name for layer in found.layers] == ["odd", "plain"] and found.layers[0].opacity == pytest.approx(0.2)
    for line in ("Layer effects are not applied (rasterize them in the paint program): odd.", "normal: odd (diss)", "left out"):
        assert line in said


# --- other writers ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["psd", "psb"])
@pytest.mark.parametrize("groups", GROUPS)
def test_documents_of_ag_psd(ending: str, groups: str) -> None:
    """A folder, masks with density, hidden, clipped and moved layers, effects and an adjustment, written by ag_psd/make.js.

    psd-tools' compositor, which has nothing in common with this one, gives the same picture of them.
    """
    path = AG_PSD / f"ag-psd.{ending}"
    layers, said = read(path.read_bytes(), groups)
    expected = np.asarray(PSDImage.open(path).composite(ignore_preview=True).convert("RGB"), np.float32) / 255  # type: ignore[union-attr]
    assert np.abs(flat(layers) - expected).max() < 1.1 / 255
    names = [layer.name for layer in layers.layers]
    inside = {APART: ["masked", "hidden 狐", "base", "clipped"], MERGE: ["folder", "base"]}[groups]
    assert names == ["ground", *inside, "shadowed"]
    assert "Layer effects" in said and "left out (adjustments, gradients, patterns, empty layers): inverted" in said


def test_documents_of_psd_tools() -> None:
    image = PSDImage.new(mode="RGB", size=(9, 6))
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (4, 5, 3), np.uint8))
    image.create_pixel_layer(picture, name="fox", top=1, left=-2, opacity=128)
    image[0].blend_mode = BlendMode.MULTIPLY
    data = BytesIO()
    image.save(data)
    [layer] = read(data.getvalue())[0].layers
    assert (layer.name, layer.x, layer.y, layer.mode) == ("fox", -2, 1, "multiply") and layer.opacity == pytest.approx(128 / 255)
    assert np.array_equal(np.round(layer.image[0, ..., :3].numpy() * 255), np.asarray(picture))


@pytest.mark.parametrize("form", ["PSD", "OpenRaster"])
def test_what_save_layers_writes_comes_back(form: str) -> None:
    """Every mode, names in several scripts, places beyond the canvas, hidden layers, opacity."""

    def picture(seed: int, channels: int = 4, size: tuple[int, int] = (7, 5)) -> torch.Tensor:
        return torch.rand(1, *size, channels, generator=torch.Generator().manual_seed(seed))

    made = [composite.Layer(picture(0, 3, (20, 30)), name="ground")]
    for index, mode in enumerate(MODES):
        place = {"x": 3 * index - 9, "y": 12 - 2 * index, "visible": index != 4, "opacity": (index + 1) / len(MODES)}
        made.append(composite.Layer(picture(index + 1), name=f"{mode} é 狐 <&>", mode=mode, **place))
    layers = composite.Layers(20, 30, tuple(made))
    file = BytesIO()
    write, reading = (write_psd, read_psd) if form == "PSD" else (write_openraster, read_openraster)
    write(file, layers, flat_bytes(layers), {})
    document = reading(file)
    for groups in GROUPS:
        found = document.layers(groups)
        assert (found.height, found.width, len(found.layers)) == (20, 30, len(made)) and document.notes.lines() == []
        for ours, theirs in zip(layers.layers, found.layers, strict=True):
            assert (theirs.name, theirs.mode, theirs.x, theirs.y, theirs.visible) == (ours.name, ours.mode, ours.x, ours.y, ours.visible)
            assert theirs.opacity == pytest.approx(ours.opacity, abs=0.5 / 255)
            assert theirs.image.shape == ours.image.shape and (theirs.image - ours.image).abs().max() <= 0.5 / 255 + 1e-6
