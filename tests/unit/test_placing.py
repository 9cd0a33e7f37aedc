"""Placing by what can be seen: the object comes to lie where it was typed or drawn, whatever is around it in its picture."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib_layerdiffuse.errors import DiaphaneError
from lib_layerdiffuse.pixels.boxes import Box, boxes_around, each_in_its_box, read_boxes, visible_box
from lib_layerdiffuse.pixels.composite import Layer, Layers
from lib_layerdiffuse.pixels.layer_stack import thinned, whereabouts
from lib_layerdiffuse.pixels.place import ANCHORS, OBJECT_FITS, fit_object, place_object

NEAR = 1.0  # pixels; the issue asks for 2


def blob(
    height: int = 96, width: int = 128, centre: tuple[float, float] = (70.0, 40.0), radii: tuple[float, float] = (30.0, 14.0)
) -> Tensor:
    """An ellipse with soft edges somewhere in a picture with haze that nobody sees."""
    y, x = torch.meshgrid(torch.arange(height) - centre[1], torch.arange(width) - centre[0], indexing="ij")
    distance = ((x / radii[0]) ** 2 + (y / radii[1]) ** 2).sqrt()
    rgba = torch.rand(1, height, width, 4, generator=torch.Generator().manual_seed(0))
    rgba[..., 3] = ((1.1 - distance) / 0.2).clamp(4 / 255, 1.0)
    return rgba


def seen(placed: tuple[Tensor, int, int]) -> Box:
    image, x, y = placed
    return found(Layer(image, x=x, y=y))[1]


def found(layer: Layer, side: int = 16) -> tuple[str, Box, float]:
    [one] = whereabouts(Layers(side, side, (layer,)))
    return one


def sides(box: Box) -> tuple[float, float, float, float]:
    return box.x, box.y, box.x + box.width, box.y + box.height


@given(st.sampled_from(list(ANCHORS)), st.floats(0.3, 3.0), st.sampled_from([0.0, 90.0, 33.0, -120.0]), st.integers(-50, 200))
@settings(max_examples=25, deadline=None)
def test_the_anchor_lies_where_it_was_typed_whatever_the_size_and_the_turn(anchor: str, scale: float, degrees: float, x: int) -> None:
    box = seen(place_object(blob(), x, 61, anchor, scale, degrees))
    across, down = ANCHORS[anchor]
    assert abs(box.x + across * box.width - x) <= 0.5 and abs(box.y + down * box.height - 61) <= 0.5
    plain = visible_box(blob())
    if degrees == 0.0:
        assert abs(box.width - scale * plain.width) <= 1 + scale and abs(box.height - scale * plain.height) <= 1 + scale
    if degrees == 90.0:
        assert abs(box.width - scale * plain.height) <= 1 + scale


@pytest.mark.parametrize("fit", OBJECT_FITS)
@pytest.mark.parametrize("box", [Box(20, 30, 200, 40), Box(-7, 5, 25, 90), Box(3, 4, 300, 300)])
@pytest.mark.parametrize("degrees", [0.0, 50.0])
def test_the_object_fits_into_the_box(fit: str, box: Box, degrees: float) -> None:
    left, top, right, bottom = sides(seen(fit_object(blob(), box, fit, degrees)))
    slack = [left - box.x, top - box.y, box.x + box.width - right, box.y + box.height - bottom]
    across, down = (slack[0], slack[2]), (slack[1], slack[3])
    touching, other = sorted((across, down), key=lambda pair: max(map(abs, pair)))
    assert max(map(abs, touching)) <= NEAR
    if fit == "stretch":
        assert max(map(abs, slack)) <= NEAR
    elif fit == "cover":
        assert max(slack) <= NEAR and abs(other[0] - other[1]) <= 2 * NEAR
    else:
        assert min(slack) >= -NEAR
        assert abs(down[1]) <= NEAR if fit == "bottom-aligned" else abs(other[0] - other[1]) <= 2 * NEAR


def test_pictures_without_alpha_and_without_an_object_can_be_placed() -> None:
    opaque = torch.rand(1, 10, 20, 3)
    image, x, y = place_object(opaque, 5, 6)
    assert torch.equal(image, opaque) and (x, y) == (5, 6)
    for nothing in (torch.zeros(1, 10, 20, 4), torch.full((1, 10, 20, 4), 4 / 255)):
        assert place_object(nothing, 5, 6, "bottom right")[1:] == (-15, -4)
        assert seen(fit_object(nothing, Box(0, 0, 40, 40))) == Box(0, 10, 40, 20)


def test_a_size_that_no_memory_holds_is_refused() -> None:
    line = torch.zeros(1, 600, 8, 4)
    line[:, 20:580, 4] = 1.0
    with pytest.raises(DiaphaneError, match="would become .* px, more than 16384. Lower scale, or set fit to contain."):
        fit_object(line, Box(0, 0, 1000, 1000), "cover")


def test_a_batch_is_placed_as_one() -> None:
    both = torch.cat((blob(centre=(40.0, 30.0)), blob(centre=(80.0, 60.0))))
    image, x, y = place_object(both, 0, 0, scale=2.0)
    plain = visible_box(both)
    apart = visible_box(image[1:]).x - visible_box(image[:1]).x
    assert abs(apart - 80) <= 1 and abs(seen((image, x, y)).width - 2 * plain.width) <= 2


# --- boxes ------------------------------------------------------------------------------------------------------------------------------

ONE = {"x": 1, "y": 2, "width": 3, "height": 4}


@pytest.mark.parametrize(("value", "count"), [(ONE, 1), ([ONE, ONE], 2), ([[ONE, ONE], [], [ONE]], 3), ([], 0)])
def test_boxes_come_alone_in_a_list_or_in_a_list_for_each_picture(value: object, count: int) -> None:
    assert read_boxes(value) == [Box(1, 2, 3, 4)] * count


def test_a_mask_is_a_box_on_the_canvas() -> None:
    masks = torch.zeros(2, 50, 100)
    masks[0, 10:20, 30:60], masks[1, 49, 99] = 1.0, 0.5
    assert boxes_around(masks, 100, 100) == [Box(30, 20, 30, 20), Box(99, 98, 1, 2)]
    assert boxes_around(masks[0], 50, 100) == [Box(30, 10, 30, 10)]
    with pytest.raises(DiaphaneError, match="Nothing is painted"):
        boxes_around(torch.zeros(1, 8, 8), 8, 8)


def test_which_picture_goes_to_which_box() -> None:
    first, second = Box(0, 0, 1, 1), Box(9, 9, 9, 9)
    one, two = torch.rand(1, 2, 2, 4), torch.rand(2, 2, 2, 4)
    assert [box for _, box in each_in_its_box(one, [first, second])] == [first]
    assert [box for _, box in each_in_its_box(two, [first, second], 2)] == [second]
    assert [(len(image), box) for image, box in each_in_its_box(two, [first, second])] == [(1, first), (1, second)]
    assert [len(image) for image, _ in each_in_its_box(two, [second])] == [2]
    for image, number in ((one, 3), (torch.rand(3, 2, 2, 4), 0)):
        with pytest.raises(DiaphaneError, match="2 boxes"):
            each_in_its_box(image, [first, second], number)
    with pytest.raises(DiaphaneError, match="0 boxes.*Draw one"):
        each_in_its_box(one, [])


# --- the canvas -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("x", "y", "outside"), [(4, 4, 0.0), (-8, 0, 0.5), (8, 8, 0.75), (12, 0, 1.0), (0, -900, 1.0)])
def test_the_share_outside_is_of_what_can_be_seen(x: int, y: int, outside: float) -> None:
    image = torch.full((1, 16, 16, 4), 4 / 255)
    image[:, 4:12, 4:12, 3] = 0.5
    assert found(Layer(image, x=x, y=y)) == ("Layer 1", Box(x + 4, y + 4, 8, 8), outside)
    assert found(Layer(torch.ones(1, 8, 8, 3), "star", x=x + 4, y=y + 4)) == ("star", Box(x + 4, y + 4, 8, 8), outside)
    assert whereabouts(Layers(16, 16, (Layer(image), Layer(image, visible=False))), above=1) == []


def test_faint_specks_are_not_seen_but_hair_is() -> None:
    image = torch.full((2, 20, 30, 4), 5 / 255)
    image[0, 3:6, 7:10, 3], image[1, 12, 2:9, 3] = 0.03, 0.2  # a faint patch, a hair
    image[0, 0, :, 3], image[1, 18:20, 25:27, 3], image[0, 19, 0, 3] = 0.09, 0.06, 0.05
    assert visible_box(image) == Box(2, 3, 8, 10)


def test_a_thinned_stack_shows_every_nth_pixel_of_the_picture() -> None:
    generator = torch.Generator().manual_seed(0)
    places = ((0, 0), (-5, 3), (7, -2), (40, 1), (3, 3))
    sizes = ((37, 50), (20, 9), (8, 8), (9, 30), (1, 1))
    layers = [Layer(torch.rand(1, *size, 4, generator=generator), x=x, y=y) for (x, y), size in zip(places, sizes, strict=True)]
    stack = Layers(37, 50, tuple(layers))
    for step in (1, 2, 3, 7):
        assert torch.equal(thinned(stack, step).flatten(), stack.flatten()[:, ::step, ::step])
        assert thinned(stack, step).width == math.ceil(50 / step)
