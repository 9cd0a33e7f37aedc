"""What holds for pictures of every size, place and content."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib_layerdiffuse.errors import DiaphaneError
from lib_layerdiffuse.pixels.backdrop import BACKDROPS, over_backdrop
from lib_layerdiffuse.pixels.bleed import bleed_rgb
from lib_layerdiffuse.pixels.blend import BLENDS
from lib_layerdiffuse.pixels.composite import Layer, Layers, composite, inside
from lib_layerdiffuse.pixels.coverage import coverage
from lib_layerdiffuse.pixels.fit import FITS, fit_to
from lib_layerdiffuse.pixels.place import place
from lib_layerdiffuse.pixels.premultiplied import premultiply, resize_rgba
from lib_layerdiffuse.pixels.repair import INVISIBLE, alpha_levels, defringe, keep_extremes, trim
from lib_layerdiffuse.pixels.straight import on_grey, transparency_mask, with_alpha

CLOSE = 1e-5
COMMUTATIVE = ["multiply", "screen", "add", "darken", "lighten", "difference", "exclusion", "linear burn", "grain merge"]
# Blending with such a source changes nothing.
NEUTRAL = {"multiply": 1.0, "screen": 0.0, "add": 0.0, "darken": 1.0, "lighten": 0.0, "difference": 0.0, "exclusion": 0.0}
NEUTRAL |= {"colour dodge": 0.0, "colour burn": 1.0, "soft light": 0.5, "hard light": 0.5, "linear burn": 1.0, "vivid light": 0.5}
NEUTRAL |= {"linear light": 0.5, "pin light": 0.5, "subtract": 0.0, "divide": 1.0, "grain extract": 0.5, "grain merge": 0.5}

sides = st.integers(1, 24)
seeds = st.integers(0, 10_000)
few = settings(max_examples=40, deadline=None)


@st.composite
def pictures(draw: st.DrawFn, channels: int = 4, batch: int | None = None, height: int | None = None, width: int | None = None) -> Tensor:
    """Noise; alpha is often exactly 0 or 1, as in cut-outs."""
    shape = (batch or draw(st.integers(1, 3)), height or draw(sides), width or draw(sides), channels)
    image = torch.rand(shape, generator=torch.Generator().manual_seed(draw(seeds)))
    if channels == 4:
        image[..., 3] = (image[..., 3] * 3.0 - 1.0).clamp(0.0, 1.0)
    return image


def recoloured(rgba: Tensor, colour: float) -> Tensor:
    """Another colour where nobody can see it."""
    result = rgba.clone()
    result[..., :3][rgba[..., 3] == 0.0] = colour
    return result


def same(a: Tensor, b: Tensor, tolerance: float = CLOSE) -> None:
    """Equal as they look: colour counts by its share."""
    seen_a, seen_b = (premultiply(image) if image.shape[-1] == 4 else image for image in (a, b))
    torch.testing.assert_close(seen_a, seen_b, atol=tolerance, rtol=0.0)


# --- straight --------------------------------------------------------------------------------------------------------------------------


@few
@given(pictures(), sides, sides, seeds)
def test_transparencies_add_up(rgba: Tensor, height: int, width: int, seed: int) -> None:
    mask = torch.rand(1, height, width, generator=torch.Generator().manual_seed(seed))
    before = rgba.clone()
    both = with_alpha(rgba, mask)
    assert torch.equal(rgba, before) and torch.equal(both[..., :3], rgba[..., :3])
    assert (both[..., 3] <= rgba[..., 3]).all() and (both[..., 3] >= 0.0).all()
    assert torch.equal(with_alpha(rgba, torch.zeros(1, height, width)), rgba)
    assert not with_alpha(rgba, torch.ones(1, height, width))[..., 3].any()
    assert torch.equal(with_alpha(rgba), rgba)
    torch.testing.assert_close(with_alpha(rgba[..., :3], transparency_mask(rgba)), rgba, atol=1e-6, rtol=0.0)


@few
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.lists(st.integers(0, 5), min_size=1, max_size=5))
def test_any_shape_gives_a_picture_or_a_message(shape: list[int], mask: list[int]) -> None:
    for transparency in (None, torch.rand(mask)):
        try:
            result = with_alpha(torch.rand(shape), transparency)
        except DiaphaneError as error:
            assert str(shape) in str(error) or str(mask) in str(error) or "masks" in str(error)
        else:
            assert result.shape[1:] == (*shape[1:3], 4) and result.numel()


@few
@given(pictures())
def test_grey_lies_behind(rgba: Tensor) -> None:
    grey = on_grey(rgba)
    height, width = rgba.shape[1:3]
    over_grey = composite([Layer(torch.full_like(rgba[..., :3], 0.5)), Layer(rgba)], height, width)
    torch.testing.assert_close(grey, over_grey, atol=CLOSE, rtol=0.0)
    assert torch.equal(on_grey(recoloured(rgba, 0.9)), grey)


@few
@given(pictures(), st.sampled_from(BACKDROPS), st.integers(1, 9))
def test_backdrops_show_only_through_what_is_transparent(rgba: Tensor, backdrop: str, cell: int) -> None:
    seen = over_backdrop(rgba, backdrop, cell)
    opaque = rgba[..., 3] == 1.0
    assert seen.shape == (*rgba.shape[:3], 3) and torch.equal(seen[opaque], rgba[..., :3][opaque])
    assert torch.equal(over_backdrop(recoloured(rgba, 0.2), backdrop, cell), seen)
    share = coverage(rgba)
    assert share.opaque + share.partial + share.transparent == pytest.approx(1.0)
    assert min(share.opaque, share.partial, share.transparent) >= -1e-6


# --- bleed, resize, place --------------------------------------------------------------------------------------------------------------


@few
@given(pictures())
def test_what_nobody_sees_changes_nothing(rgba: Tensor) -> None:
    other = recoloured(rgba, 0.75)
    assert torch.equal(bleed_rgb(rgba), bleed_rgb(other))
    same(resize_rgba(rgba, 7, 11), resize_rgba(other, 7, 11))
    same(place(rgba, 0.7, 33.0)[0], place(other, 0.7, 33.0)[0])


@few
@given(pictures(), sides, sides)
def test_resizing_invents_nothing(rgba: Tensor, height: int, width: int) -> None:
    resized = resize_rgba(rgba, height, width)
    assert resized.shape == (len(rgba), height, width, 4)
    assert resized.min() >= 0.0 and resized.max() <= 1.0
    assert torch.equal(resize_rgba(rgba, *rgba.shape[1:3]), rgba)
    solid = torch.cat((rgba[..., :3], torch.ones_like(rgba[..., :1])), dim=-1)
    assert (resize_rgba(solid, height, width)[..., 3] > 1.0 - CLOSE).all()
    same(resize_rgba(solid, height, width)[..., :3], resize_rgba(solid[..., :3], height, width))
    one = rgba.clone()
    one[..., :3] = torch.tensor((0.2, 0.5, 0.9))
    shrunk = resize_rgba(one, height, width)
    there = shrunk[..., 3] > 0.01
    torch.testing.assert_close(shrunk[there][..., :3], one[0, 0, 0, :3].expand(int(there.sum()), 3), atol=1e-3, rtol=0.0)


@few
@given(pictures(), st.floats(0.1, 3.0), st.floats(-360.0, 360.0))
def test_the_centre_stays(rgba: Tensor, scale: float, degrees: float) -> None:
    height, width = rgba.shape[1:3]
    placed, x, y = place(rgba, scale, degrees)
    assert len(placed) == len(rgba) and min(placed.shape[1:3]) >= 1
    assert abs(2 * x + placed.shape[2] - width) <= 1 and abs(2 * y + placed.shape[1] - height) <= 1
    assert placed.min() >= 0.0 and placed.max() <= 1.0


@few
@given(pictures(), st.sampled_from([90.0, 180.0, 270.0, -90.0, 360.0]))
def test_quarter_turns_are_exact(rgba: Tensor, degrees: float) -> None:
    turned, _, _ = place(rgba, 1.0, degrees)
    back, _, _ = place(turned, 1.0, -degrees)
    assert torch.equal(back, rgba)
    assert torch.equal(place(rgba)[0], rgba)


# --- fit -------------------------------------------------------------------------------------------------------------------------------


@few
@given(sides, sides, sides, sides, st.sampled_from(FITS), st.floats(0.0, 1.0))
def test_fitting_one_colour_gives_it_back(height: int, width: int, new_height: int, new_width: int, how: str, value: float) -> None:
    x = torch.full((1, 3, height, width), value)
    fitted = fit_to(x, new_height, new_width, how, fill=value)
    torch.testing.assert_close(fitted, torch.full((1, 3, new_height, new_width), value), atol=CLOSE, rtol=0.0)


@few
@given(sides, sides, sides, sides, seeds)
def test_fitting_keeps_the_middle(height: int, width: int, new_height: int, new_width: int, seed: int) -> None:
    """A picture that is the same turned by half stays so, to within the pixel that an odd rest leaves on one side."""
    x = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(seed))
    x = x + x.flip(2, 3)
    stretched = fit_to(x, new_height, new_width, "stretch")
    torch.testing.assert_close(stretched, stretched.flip(2, 3), atol=1e-4, rtol=0.0)
    assert torch.equal(fit_to(x, height, width, "crop"), x) and torch.equal(fit_to(x, height, width, "fit"), x)


# --- blend and composite ---------------------------------------------------------------------------------------------------------------


@few
@given(pictures(3, 1, 6, 7), pictures(3, 1, 6, 7))
def test_blend_modes(behind: Tensor, source: Tensor) -> None:
    for mode, blend in BLENDS.items():
        mixed = blend(behind, source)
        assert mixed.min() >= -CLOSE and mixed.max() <= 1.0 + CLOSE, mode
        if mode in COMMUTATIVE:
            torch.testing.assert_close(mixed, blend(source, behind), atol=CLOSE, rtol=0.0)
        if mode in NEUTRAL:
            torch.testing.assert_close(blend(behind, torch.full_like(behind, NEUTRAL[mode])), behind, atol=CLOSE, rtol=0.0)
    torch.testing.assert_close(BLENDS["overlay"](behind, source), BLENDS["hard light"](source, behind), atol=CLOSE, rtol=0.0)


@st.composite
def stacks(draw: st.DrawFn) -> Layers:
    height, width = draw(sides), draw(sides)
    layers = []
    for _ in range(draw(st.integers(1, 4))):
        settings_: dict[str, Any] = {"mode": draw(st.sampled_from(list(BLENDS))), "opacity": draw(st.sampled_from([0.0, 0.3, 1.0]))}
        place_: dict[str, Any] = {"x": draw(st.integers(-30, 30)), "y": draw(st.integers(-30, 30))}
        image = draw(pictures(draw(st.sampled_from([3, 4])), draw(st.sampled_from([1, 2]))))
        layers.append(Layer(image, **settings_, **place_))
    return Layers(height, width, tuple(layers))


@few
@given(stacks(), st.data())
def test_a_strip_is_a_part_of_the_picture(stack: Layers, data: st.DataObject) -> None:
    whole = stack.flatten()
    top = data.draw(st.integers(0, stack.height - 1))
    rows = data.draw(st.integers(1, stack.height - top))
    assert torch.equal(stack.flatten(top, rows), whole[:, top : top + rows])
    for index in range(len(whole)):
        torch.testing.assert_close(stack.one(index).flatten(), whole[index : index + 1], atol=1e-6, rtol=0.0)


@few
@given(stacks(), pictures(3, 1))
def test_what_lies_outside_or_below_is_not_seen(stack: Layers, image: Tensor) -> None:
    height, width = image.shape[1:3]
    whole = stack.flatten()
    beside = Layer(image, x=stack.width, y=0), Layer(image, x=0, y=-height), Layer(image, x=-width, y=stack.height)
    assert torch.equal(composite((*stack.layers, *beside), stack.height, stack.width), whole)
    cover = Layer(torch.rand(1, stack.height, stack.width, 3))
    covered = composite((*stack.layers, cover), stack.height, stack.width)
    torch.testing.assert_close(covered[..., :3], cover.image.expand(len(covered), -1, -1, -1), atol=CLOSE, rtol=0.0)


@few
@given(stacks(), st.integers(-5, 5), st.integers(-5, 5))
def test_the_whole_composition_can_be_moved(stack: Layers, x: int, y: int) -> None:
    """On a larger canvas, moved, every pixel is the same as before."""
    margin = 5
    moved = [Layer(item.image, item.name, item.mode, item.opacity, item.x + x + margin, item.y + y + margin) for item in stack.layers]
    nothing = Layer(torch.zeros(1, stack.height + 2 * margin, stack.width + 2 * margin, 4))
    larger = composite((nothing, *moved), stack.height + 2 * margin, stack.width + 2 * margin)
    here = composite((Layer(torch.zeros(1, stack.height, stack.width, 4)), *stack.layers), stack.height, stack.width)
    assert torch.equal(larger[:, margin + y : margin + y + stack.height, margin + x : margin + x + stack.width], here)


@few
@given(st.integers(-40, 40), st.integers(1, 20), st.integers(1, 20))
def test_inside_is_what_overlaps(offset: int, length: int, canvas: int) -> None:
    first, last = inside(offset, length, canvas)
    assert set(range(first, last)) == {i for i in range(length) if 0 <= i + offset < canvas}


# --- repair ----------------------------------------------------------------------------------------------------------------------------


@few
@given(pictures(), st.integers(0, 4))
def test_trimming_twice_is_trimming_once(rgba: Tensor, margin: int) -> None:
    trimmed, x, y = trim(rgba, margin)
    again, more_x, more_y = trim(trimmed, margin)
    assert torch.equal(again, trimmed) and (more_x, more_y) == (0, 0)
    assert torch.equal(rgba[:, y : y + trimmed.shape[1], x : x + trimmed.shape[2]], trimmed)
    assert (trimmed[..., 3] > INVISIBLE).sum() == (rgba[..., 3] > INVISIBLE).sum()


@few
@given(pictures(), st.integers(0, 6))
def test_defringing_keeps_alpha_and_range(rgba: Tensor, width: int) -> None:
    mended = defringe(rgba, width)
    assert torch.equal(mended[..., 3], rgba[..., 3])
    assert mended.min() >= 0.0 and mended.max() <= 1.0 and mended.isfinite().all()
    same(defringe(recoloured(rgba, 0.6), width), mended)


@few
@given(pictures(), st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.1, 10.0))
def test_levels_are_monotonic(rgba: Tensor, black: float, white: float, gamma: float) -> None:
    if black >= white:
        with pytest.raises(DiaphaneError, match="Lower black or raise white"):
            alpha_levels(rgba, black, white, gamma)
        return
    order = rgba[..., 3].flatten().argsort()
    levelled = alpha_levels(rgba, black, white, gamma)[..., 3].flatten()[order]
    assert (levelled.diff() >= -1e-6).all() and levelled.min() >= 0.0 and levelled.max() <= 1.0


@few
@given(pictures(), st.integers(1, 4), seeds)
def test_only_edges_are_left_to_an_upscaler(rgba: Tensor, scale: int, seed: int) -> None:
    alpha = rgba[..., 3]
    noise = torch.rand(len(alpha), alpha.shape[1] * scale, alpha.shape[2] * scale, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(keep_extremes(noise, torch.zeros_like(alpha)), torch.zeros_like(noise))
    assert torch.equal(keep_extremes(noise, torch.ones_like(alpha)), torch.ones_like(noise))
    kept = keep_extremes(noise, alpha)
    assert ((kept == noise) | (kept == 0.0) | (kept == 1.0)).all()
