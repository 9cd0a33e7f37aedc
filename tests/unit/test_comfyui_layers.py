"""The layers of ComfyUI's own nodes to ours and back, made by its nodes, by other nodes and by hand."""

# pyright: reportMissingImports=false
from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib_layerdiffuse.documents.comfyui_layers import MODES, from_comfyui, to_comfyui, without_picture
from lib_layerdiffuse.errors import DiaphaneError
from lib_layerdiffuse.pixels.blend import BLENDS
from lib_layerdiffuse.pixels.composite import Layer, Layers

# Of Create Layered Image.
THEIRS = {
    "normal",
    "multiply",
    "screen",
    "overlay",
    "darken",
    "lighten",
    "color-dodge",
    "color-burn",
    "hard-light",
    "soft-light",
    "difference",
}
THEIRS |= {"exclusion", "linear-dodge", "linear-burn", "vivid-light", "pin-light", "linear-light", "hard-mix", "subtract", "divide"}
THEIRS |= {"hue", "grain-extract", "grain-merge", "saturation", "color", "luminosity"}
places = st.integers(-30, 30)
few = settings(max_examples=60, deadline=None)
sides = st.integers(1, 9)


@st.composite
def images(draw: st.DrawFn) -> Tensor:
    shape = (1, draw(sides), draw(sides), draw(st.sampled_from([3, 4])))
    return torch.rand(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))


@st.composite
def stacks(draw: st.DrawFn) -> Layers:
    names, modes, opacities = st.text(max_size=5), st.sampled_from(list(BLENDS)), st.floats(0.0, 1.0)
    layer = st.builds(Layer, images(), names, modes, opacities, places, places, st.booleans())
    return Layers(draw(sides), draw(sides), tuple(draw(st.lists(layer, min_size=1, max_size=4))))


JUNK = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3) | st.just(np.zeros(3)) | st.just([1]) | st.just({})
KEYS = ["mask", "x", "y", "w", "h", "rotation", "flip_h", "flip_v", "opacity", "blend_mode", "visible", "name", "z_index", "type", "more"]


def same(one: Any, other: Any) -> bool:
    """Equal, pictures included."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return len(one) == len(other) and all(map(same, one, other)) if isinstance(one, list) else one == other


def test_modes_are_those_of_comfyui() -> None:
    assert set(MODES.values()) == THEIRS and MODES.keys() == BLENDS.keys()


@few
@given(stacks())
def test_there_and_back(stack: Layers) -> None:
    document = to_comfyui(stack)
    back = from_comfyui(document)
    assert (back.height, back.width, len(back.layers)) == (stack.height, stack.width, len(stack.layers))
    for ours, theirs in zip(stack.layers, back.layers, strict=True):
        assert torch.equal(ours.image, theirs.image)
        assert all(getattr(ours, key) == getattr(theirs, key) for key in ("name", "mode", "opacity", "x", "y", "visible"))
    assert same(to_comfyui(back), document)


@few
@given(
    st.dictionaries(st.sampled_from(["version", "canvas", "layers", "more"]), JUNK), st.dictionaries(st.sampled_from(KEYS), JUNK), images()
)
def test_whatever_is_in_a_document_it_loads_or_says_why_not(document: dict[str, Any], item: dict[str, Any], image: Tensor) -> None:
    for whole in (document, document | {"layers": [item, 3, None, {**item, "image": image}, item]}):
        try:
            stack = from_comfyui(whole)
        except DiaphaneError as error:
            assert len(str(error)) < 500
        else:
            assert without_picture(whole) == 4
            [layer] = stack.layers
            assert layer.image.isfinite().all() and 0.0 <= layer.opacity <= 1.0


def test_what_is_missing_or_of_another_type_is_as_usual() -> None:
    wrong = {"x": True, "y": "7", "w": None, "h": -3, "rotation": math.nan, "opacity": "1", "visible": None, "name": 5, "mask": "m"}
    image = torch.rand(1, 4, 6, 3)
    for item in ({"image": image}, {"image": image, **wrong}):
        for canvas in ({}, {"canvas": (0, 9)}, {"canvas": "ab"}, {"canvas": (True, True)}):
            stack = from_comfyui({"layers": [item], **canvas})
            [layer] = stack.layers
            assert (stack.width, stack.height) == (6, 4) and layer.image is not None and torch.equal(layer.image, image)
            assert (layer.x, layer.y, layer.mode, layer.opacity, layer.visible, layer.name) == (0, 0, "normal", 1.0, True, "")


def test_numbers_may_be_of_numpy_and_the_canvas_a_list() -> None:
    item = {"image": torch.rand(1, 4, 6, 3), "x": np.int64(-2), "y": np.float32(3.9), "w": 12, "h": np.int32(8), "opacity": 7}
    stack = from_comfyui({"canvas": [np.int64(50), 40.5], "layers": (item,)})
    [layer] = stack.layers
    assert (stack.width, stack.height) == (50, 40)
    assert (layer.x, layer.y, layer.opacity, layer.image.shape) == (-2, 3, 1.0, (1, 8, 12, 3))


def test_frames_are_layers_sorted_by_z_index() -> None:
    batch, single = torch.rand(3, 4, 6, 4), torch.rand(1, 4, 6, 3)
    mask = torch.stack((torch.ones(4, 6), torch.zeros(4, 6)))  # 1 = transparent; the third picture has none
    items = [
        {"image": single, "z_index": 2, "name": "top"},
        {"image": batch, "mask": mask, "name": "batch"},
        {"image": single, "mask": torch.ones(1, 2, 3), "z_index": -1},
        {"image": single, "name": "above the batch"},
    ]
    stack = from_comfyui({"layers": items, "version": 1})
    assert [layer.name for layer in stack.layers] == ["", "batch", "batch", "batch", "above the batch", "top"]
    alphas = [layer.image[..., 3] for layer in stack.layers[:4]]
    assert not alphas[0].any() and not alphas[1].any()  # another size is stretched
    assert torch.equal(alphas[2], batch[1:2, ..., 3]) and torch.equal(alphas[3], batch[2:, ..., 3])
    assert to_comfyui(stack)["layers"][0].keys() == {"image", "type", "x", "y", "z_index"}


def test_boxes_are_mirrored_scaled_and_turned_about_their_centre() -> None:
    image = torch.zeros(1, 2, 4, 4)
    image[0, 0, 0] = torch.tensor((1.0, 0.0, 0.0, 1.0))  # the top left corner
    item = {"image": image, "x": 10, "y": 20, "w": 8, "h": 4}

    def corner(**more: Any) -> tuple[float, float]:
        """Where the red corner is on the canvas: the mean x and y."""
        stack = from_comfyui({"canvas": (40, 40), "layers": [{**item, **more}]})
        y, x = torch.nonzero(stack.flatten()[0, ..., 3] > 0.5, as_tuple=True)
        return x.float().mean().item() + 0.5, y.float().mean().item() + 0.5

    assert corner() == (11.0, 21.0)
    assert corner(flip_h=True) == (17.0, 21.0)
    assert corner(flip_v=True) == (11.0, 23.0)
    assert corner(rotation=math.pi / 2) == (15.0, 19.0)  # clockwise: up and to the right
    assert corner(rotation=math.pi) == (17.0, 23.0)
    assert corner(flip_h=True, rotation=math.pi) == (11.0, 23.0)
    assert all(9.0 < place < 26.0 for place in corner(rotation=1e308))
    assert corner(rotation=math.pi / 2 + 0.001) == pytest.approx((15.0, 19.0), abs=0.3)


def test_without_a_canvas_it_reaches_to_the_last_corner() -> None:
    box = {"image": torch.rand(1, 10, 20, 3), "x": 5, "y": -3}
    assert (lambda stack: (stack.width, stack.height))(from_comfyui({"layers": [box]})) == (25, 7)
    turned = from_comfyui({"layers": [{**box, "rotation": math.pi / 4}]})
    half = 15 * math.sqrt(0.5)
    assert (turned.width, turned.height) == (math.ceil(15 + half), math.ceil(2 + half))
