"""Place Layer as artists use it: objects lie where they are typed or drawn, old workflows keep their pictures, nodes show what is where."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import folder_paths
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from lib_layerdiffuse.comfyui.alpha.codec import decode_rgba, encode_rgba
from lib_layerdiffuse.comfyui.alpha.loading import offset_encoder, transparency_decoder
from lib_layerdiffuse.comfyui.models.mini import load_mini
from lib_layerdiffuse.pixels.place import place as place_frame
from lib_layerdiffuse.weights.catalogue import Family
from training.data.sprites import GLASS, GLOW, SOLID, draw_sprites, paint

from .reference import as_the_host_runs

Place = Callable[..., Any]

NEAR = 2  # pixels
OLD = {"name": "", "mode": "normal", "opacity": 1.0, "x": 0, "y": 0, "scale": 1.0, "rotation": 0.0}  # all that older workflows have
CANVAS = torch.rand(1, 160, 240, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", autouse=True)
def _host() -> Iterator[None]:
    with as_the_host_runs():
        yield


@pytest.fixture(scope="module")
def sprites() -> list[Tensor]:
    """A solid, a glass and a glowing one as the mini models decode them: with haze all around, anywhere in their pictures."""
    vae = load_mini()[2]
    kinds = torch.tensor([0, 1, 2]), torch.tensor([0, 3, 5]), torch.tensor([SOLID, GLASS, GLOW])
    drawn = paint(draw_sprites(*kinds, torch.Generator().manual_seed(3)), 128).movedim(1, -1)
    latent = encode_rgba(vae, offset_encoder(vae, Family.SD15), drawn, offset_scale=300.0)
    return list(decode_rgba(transparency_decoder(vae, Family.SD15), vae.decode(latent), latent).split(1))


@pytest.fixture
def place(node_classes: dict[str, Any], base_directory: Any) -> Place:
    """place(picture, **changes) -> the output of Place Layer, as the artist adds it to a graph."""

    def call(image: Tensor, **changes: Any) -> Any:
        new = {"moves": "object", "anchor": "top left", "unit": "pixels", "flip": "none", "fit": "contain", "box_number": 0}
        return node_classes["DiaphanePlaceLayer"].execute(image=image, **{**OLD, **new, "canvas": CANVAS, **changes})

    return call


def sides(layers: Any) -> list[int]:
    """Left, top, right and bottom of what can be seen on the canvas: most of the nine pixels there are not nothing."""
    seen = avg_pool2d((layers.flatten()[..., 3] > 0.02).float(), 3, stride=1, padding=1)[0] > 0.5
    columns, rows = seen.any(dim=0).nonzero(), seen.any(dim=1).nonzero()
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


def each(layers: Any) -> list[Any]:
    return [type(layers)(layers.height, layers.width, (layer,)) for layer in layers.layers]


def test_three_objects_lie_where_they_are_typed(place: Place, sprites: list[Tensor]) -> None:
    """One queue, six numbers; before, this took three queues and a ruler."""
    for picture, (x, y) in zip(sprites, ((4, 84), (100, 10), (150, 70)), strict=True):
        for more in ({}, {"scale": 0.6}, {"scale": 0.6, "rotation": 40.0}):
            left, top, _, _ = sides(place(picture, x=x, y=y, **more).result[0])
            assert abs(left - x) <= NEAR and abs(top - y) <= NEAR


BOXES = [
    {"x": 6, "y": 20, "width": 60, "height": 120},
    {"x": 80, "y": 4, "width": 70, "height": 50},
    {"x": 160, "y": 60, "width": 76, "height": 90},
]


def assert_contained(layers: Any, box: dict[str, int]) -> None:
    left, top, right, bottom = sides(layers)
    around = left - box["x"], top - box["y"], box["x"] + box["width"] - right, box["y"] + box["height"] - bottom
    assert min(around) >= -NEAR and min(max(around[0], around[2]), max(around[1], around[3])) <= NEAR, around


def test_three_objects_lie_where_three_boxes_are_drawn(place: Place, sprites: list[Tensor]) -> None:
    """No number. Create Bounding Boxes gives a list with the boxes of one picture in it."""
    [layers] = place(torch.cat(sprites), name="Toy", box=[BOXES]).result
    assert [layer.name for layer in layers.layers] == ["Toy 1", "Toy 2", "Toy 3"]
    for one, box in zip(each(layers), BOXES, strict=True):
        assert_contained(one, box)
    for number, (picture, box) in enumerate(zip(sprites, BOXES, strict=True), start=1):
        assert_contained(place(picture, box=[BOXES], box_number=number).result[0], box)
        painted = torch.zeros(1, 80, 120)  # half as large as the canvas
        painted[:, box["y"] // 2 : (box["y"] + box["height"]) // 2, box["x"] // 2 : (box["x"] + box["width"]) // 2] = 1.0
        assert_contained(place(picture, into=painted, x=999).result[0], box)


@pytest.mark.parametrize("settings", [{"x": 40, "y": -7}, {"x": 3, "scale": 0.7}, {"scale": 1.3, "rotation": 25.0}])
def test_prompts_without_the_new_inputs_keep_their_pictures(
    node_classes: dict[str, Any], place: Place, sprites: list[Tensor], settings: dict[str, Any]
) -> None:
    picture = sprites[0]
    [old] = node_classes["DiaphanePlaceLayer"].execute(image=picture, **{**OLD, **settings}).result
    [again] = place(picture, moves="picture", canvas=None, **settings).result
    expected, left, top = place_frame(picture, settings.get("scale", 1.0), settings.get("rotation", 0.0))
    for layers in (old, again):
        [layer] = layers.layers
        assert torch.equal(layer.image, expected) and (layer.x, layer.y) == (settings.get("x", 0) + left, settings.get("y", 0) + top)
        assert (layers.height, layers.width) == (128, 128)


def test_per_cent_anchors_and_flips(place: Place, sprites: list[Tensor]) -> None:
    middle = place(sprites[1], x=50, y=100, unit="per cent", anchor="bottom", scale=0.5).result[0]
    left, _, right, bottom = sides(middle)
    assert abs((left + right) / 2 - 120) <= 1 and bottom == 160
    plain, flipped = (place(sprites[1], flip=flip).result[0].flatten()[..., 3] for flip in ("none", "both"))
    width, height = sides(place(sprites[1]).result[0])[2:]
    assert torch.equal(plain[0, :height, :width], flipped[0, :height, :width].flip((0, 1)))


# --- what the nodes show -------------------------------------------------------------------------------------------------------------


def shown(output: Any) -> Image.Image:
    [file] = output.ui["images"]
    assert file["type"] == "temp"
    return Image.open(f"{folder_paths.get_temp_directory()}/{file['subfolder']}/{file['filename']}")


def test_the_node_shows_the_picture_so_far_and_says_where_the_layer_lies(place: Place) -> None:
    square = torch.zeros(1, 40, 40, 4)
    square[:, 10:30, 10:30] = 1.0
    output = place(square, name="Star", x=230, y=100)
    assert output.ui["text"] == ["Star: x 230, y 100, 20x20 px, 50% of it outside the canvas."]
    picture = shown(output)
    assert picture.size == (240, 160) and picture.mode == "RGB"
    assert (picture.getpixel((235, 100)), picture.getpixel((235, 99))) == ((255, 255, 255), (0, 0, 0))
    there = np.array(picture)[5, 5] / 255
    assert there == pytest.approx(CANVAS[0, 5, 5].tolist(), abs=1 / 255)
    assert place(square, x=100, canvas=None).ui["text"] == ["Layer 1: x 100, y 0, 20x20 px."]


def test_a_large_composition_is_shown_small_with_all_new_layers_framed(place: Place, node_classes: dict[str, Any]) -> None:
    square = torch.zeros(1, 40, 40, 4)
    square[..., 3] = 0.5
    layer = place(square, name="星", x=699, y=102).result[0]
    output = node_classes["DiaphaneComposite"].execute(background=torch.ones(1, 600, 1500, 3), layers={"layer0": layer})
    picture = shown(output)
    assert picture.size == (500, 200) and output.ui["text"] == []
    assert picture.getpixel((240, 34)) == (255, 255, 255) and picture.getpixel((240, 33)) == (0, 0, 0)


def test_a_layer_beside_the_canvas_is_named_in_the_picture(place: Place, node_classes: dict[str, Any]) -> None:
    layer = place(torch.ones(1, 40, 40, 4), name="Star", x=500, y=-90).result[0]
    output = node_classes["DiaphaneComposite"].execute(background=torch.full((1, 160, 240, 3), 0.5), layers={"layer0": layer})
    label = np.array(shown(output).crop((100, 0, 240, 20)))
    assert label.min() == 0 and label.max() > 200
    assert output.ui["text"][0].startswith("Off the canvas of 240x160 and so not to be seen: Star.")


def test_a_preview_that_fails_stops_nothing(place: Place, pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(sys.modules[f"{pack.__name__}.lib_layerdiffuse.comfyui.files.previews"].ui, "PreviewImage", full)
    output = place(torch.ones(1, 8, 8, 4))
    assert len(output.result[0].layers) == 1 and output.ui.keys() == {"text"}
