"""Blend modes, placing and mending, against other people's compositors and against properties that hold for every picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops
from torch import Tensor

from lib_layerdiffuse.errors import DiaphaneError
from lib_layerdiffuse.pixels.blend import BLENDS
from lib_layerdiffuse.pixels.composite import Layer, composite
from lib_layerdiffuse.pixels.place import place
from lib_layerdiffuse.pixels.premultiplied import premultiply, resize_rgba, straighten
from lib_layerdiffuse.pixels.repair import INVISIBLE, alpha_levels, defringe, trim

# Far below what 8 bits can show; the issue asks for 1/255.
CLOSE = 1e-5
PIL_MODES = {
    "multiply": ImageChops.multiply,
    "screen": ImageChops.screen,
    "overlay": ImageChops.overlay,
    "hard light": ImageChops.hard_light,
    "add": ImageChops.add,
    "darken": ImageChops.darker,
    "lighten": ImageChops.lighter,
    "difference": ImageChops.difference,
}
seeds = st.integers(0, 1000)


def picture(height: int, width: int, seed: int = 0, batch: int = 1) -> Tensor:
    """Random 8-bit colours with every kind of alpha: none, full, and all between; some colours at the ends of the range, some grey."""
    generator = torch.Generator().manual_seed(seed)
    rgba = torch.randint(0, 256, (batch, height, width, 4), generator=generator)
    kind = torch.randint(0, 8, (batch, height, width), generator=generator)
    rgba[..., 3][kind == 0] = 0
    rgba[..., 3][kind == 1] = 255
    rgba[..., :3][kind == 2] = 0
    rgba[..., :3][kind == 3] = 255
    rgba[..., :3][kind == 4] = rgba[..., :1][kind == 4]
    return rgba / 255


def to_pil(image: Tensor) -> Image.Image:
    return Image.fromarray((image[0] * 255).round().to(torch.uint8).numpy())


def from_pil(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image))[None] / 255


def over(behind: Tensor, source: Tensor, mode: str = "normal", opacity: float = 1.0) -> Tensor:
    """One picture over another of the same size."""
    height, width = behind.shape[1:3]
    return composite([Layer(behind), Layer(source, mode=mode, opacity=opacity)], height, width)


def premultiplied_error(ours: Tensor, theirs: Tensor) -> float:
    return (premultiply(ours) - premultiply(theirs)).abs().mean().item()


# --- blend modes ------------------------------------------------------------------------------------------------------------------------


def test_grain_is_put_back_where_it_was_taken_from() -> None:
    fine, coarse = torch.rand(1, 9, 11, 3) * 0.5 + 0.25, torch.rand(1, 9, 11, 3) * 0.5 + 0.25
    grain = over(fine, coarse, "grain extract")
    assert torch.allclose(grain, fine - coarse + 0.5)
    assert torch.allclose(over(coarse, grain, "grain merge"), fine, atol=1e-6)


@pytest.mark.parametrize("mode", PIL_MODES)
def test_blends_as_pillow_does_where_both_are_opaque(mode: str) -> None:
    below, above = picture(64, 64, seed=4)[..., :3], picture(64, 64, seed=5)[..., :3]
    theirs = from_pil(PIL_MODES[mode](to_pil(below), to_pil(above)))
    assert (over(below, above, mode) - theirs).abs().mean() < 0.5 / 255


def test_composites_as_pillow_does() -> None:
    below, above = picture(64, 64, seed=6), picture(64, 64, seed=7)
    theirs = from_pil(Image.alpha_composite(to_pil(below), to_pil(above)))
    assert premultiplied_error(over(below, above), theirs) < 0.5 / 255


@given(seeds, st.sampled_from(list(BLENDS)))
@settings(max_examples=60, deadline=None)
def test_results_are_colours_and_nothing_changes_outside_alpha(seed: int, mode: str) -> None:
    below, above = picture(9, 11, seed), picture(9, 11, seed + 1)
    for behind in (below, below[..., :3]):
        result = over(behind, above, mode, 0.7)
        assert result.shape == behind.shape
        assert result.min() >= -1e-6 and result.max() <= 1 + 1e-6
        hidden = above[..., 3] == 0
        assert torch.equal(result[hidden], behind[hidden])


@pytest.mark.parametrize("channels", [3, 4])
def test_alpha_out_of_range_counts_as_all_or_nothing(channels: int) -> None:
    below, above = picture(9, 11, 1)[..., :channels], picture(9, 11, 2)
    wild = above.clone()
    wild[..., 3] = wild[..., 3] * 3 - 1  # as left by filters that sharpen
    above[..., 3] = wild[..., 3].clamp(0, 1)
    assert torch.equal(over(below, wild), over(below, above))


@pytest.mark.parametrize("mode", BLENDS)
@pytest.mark.parametrize("channels", [3, 4])
def test_colour_under_full_transparency_may_be_anything(mode: str, channels: int) -> None:
    below, above = picture(9, 11, 1)[..., :channels], picture(9, 11, 2)
    above[:, :5, :, 3] = 0
    wild = above.clone()
    wild[:, :3, :, :3], wild[:, 3:5, :, :3] = torch.nan, torch.inf
    assert torch.equal(over(below, wild, mode), over(below, above, mode))


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_layers_may_be_flattened_from_either_end(seed: int) -> None:
    a, b, c = (picture(6, 7, seed + i) for i in range(3))
    assert premultiplied_error(over(over(a, b), c), over(a, over(b, c))) < CLOSE


@pytest.mark.parametrize("mode", BLENDS)
def test_an_opaque_background_gives_what_opaque_rgba_gives(mode: str) -> None:
    below, above = picture(16, 16, seed=8), picture(16, 16, seed=9)
    below[..., 3] = 1
    assert torch.allclose(over(below[..., :3], above, mode), over(below, above, mode)[..., :3], atol=1e-6)


def test_layers_are_cut_at_the_canvas_and_keep_the_rest_bit_identical() -> None:
    background = picture(20, 30, seed=10)[..., :3]
    kept = background.clone()
    layers = [Layer(background), Layer(picture(8, 8, seed=11), x=26, y=-3), Layer(picture(4, 4), x=99)]
    result = composite(layers, 20, 30)
    assert torch.equal(torch.cat([composite(layers, 20, 30, top, 7) for top in (0, 7, 14)], dim=1), result)
    assert torch.equal(background, kept)
    touched = (result != background).any(dim=-1)[0]
    assert touched.any() and not touched[5:].any() and not touched[:, :26].any()


def test_hidden_layers_count_for_nothing_but_their_place() -> None:
    below, hidden, above = (Layer(torch.rand(1, 8, 8, 4), visible=visible) for visible in (True, False, True))
    assert torch.equal(composite([below, hidden, above], 8, 8), composite([below, above], 8, 8))
    assert composite([hidden], 8, 8).count_nonzero() == 0


def test_batches_meet() -> None:
    single, several = picture(8, 8), picture(8, 8, seed=1, batch=3)
    result = composite([Layer(single), Layer(several)], 8, 8)
    assert torch.equal(result[2:], composite([Layer(single), Layer(several[2:])], 8, 8))
    with pytest.raises(DiaphaneError, match="batches of 2 and 3 pictures"):
        composite([Layer(several), Layer(several[:2])], 8, 8)


# --- placing ----------------------------------------------------------------------------------------------------------------------------


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_premultiplying_can_be_undone_where_there_is_something(seed: int) -> None:
    rgba = picture(5, 5, seed)
    back = straighten(premultiply(rgba))
    assert torch.allclose(back[rgba[..., 3] > 0], rgba[rgba[..., 3] > 0], atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(20, 31), (64, 80), (100, 160), (7, 200)])
def test_resizing_does_not_fringe(height: int, width: int) -> None:
    rgba = disc(64, 80, colour=(0.9, 0.5, 0.1), outside=(0.0, 1.0, 1.0))
    resized = resize_rgba(rgba, height, width)
    seen = resized[..., 3] > 1 / 255
    assert resized.shape == (1, height, width, 4)
    assert (resized[seen][:, :3] - torch.tensor((0.9, 0.5, 0.1))).abs().max() < 1e-3


def test_shrinking_is_the_mean_of_what_is_seen() -> None:
    stripes = torch.zeros(1, 64, 64, 4)
    stripes[:, :, ::2] = torch.tensor((1.0, 0.0, 0.0, 1.0))  # between them: transparent black
    shrunk = resize_rgba(stripes, 8, 8)[:, 2:6, 2:6]
    assert torch.allclose(shrunk, torch.tensor((1.0, 0.0, 0.0, 0.5)), atol=0.02)


def disc(height: int, width: int, colour: tuple[float, ...], outside: tuple[float, ...], radius: float = 20.0, soft: float = 8.0) -> Tensor:
    """A disc in the middle whose edge fades out over `soft` pixels."""
    y, x = torch.meshgrid(torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2, indexing="ij")
    alpha = ((radius - (x * x + y * y).sqrt()) / soft + 0.5).clamp(0.0, 1.0)[..., None]
    rgb = torch.where(alpha > 0, torch.tensor(colour), torch.tensor(outside))
    return torch.cat((rgb, alpha), dim=-1)[None]


@pytest.mark.parametrize("degrees", [0.0, 17.0, 45.0, 90.0, 133.7, -90.0, 180.0])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.5])
def test_a_disc_stays_a_disc_in_its_place(scale: float, degrees: float) -> None:
    placed, x, y = place(disc(64, 68, (0.2, 0.4, 0.6), (1.0, 0.0, 0.0)), scale, degrees)
    canvas = composite([Layer(placed, x=x + 50, y=y + 50)], 164, 168)
    expected = disc(164, 168, (0.2, 0.4, 0.6), (0.0, 0.0, 0.0), 20 * scale, soft=8 * scale)
    error = (premultiply(canvas) - premultiply(expected)).abs()
    assert error.mean() < 0.5 / 255 and error.max() < 0.07


def test_a_turn_by_nearly_a_right_angle_is_nearly_a_right_angle() -> None:
    rgba = resize_rgba(picture(6, 8, seed=12), 48, 64)
    exact, x, y = place(rgba, degrees=90.0)
    near, near_x, near_y = place(rgba, degrees=90.0001)
    canvases = [composite([Layer(one, x=dx + 20, y=dy + 20)], 100, 100) for one, dx, dy in ((exact, x, y), (near, near_x, near_y))]
    assert exact.shape == (1, 64, 48, 4) and (x, y) == (8, -8)
    assert premultiplied_error(*canvases) < 1e-3
    assert torch.equal(exact[0, 0, -1], rgba[0, 0, 0])  # clockwise: the top left corner goes to the top right


def test_turning_an_opaque_picture_gives_smooth_edges_and_empty_corners() -> None:
    turned, _, _ = place(torch.full((1, 40, 40, 3), 0.5), degrees=30.0)
    assert turned.shape[-1] == 4 and turned[0, 0, 0, 3] == 0
    assert turned[..., 3].sum() == pytest.approx(1600, rel=0.01)
    assert ((turned[..., 3] > 0.05) & (turned[..., 3] < 0.95)).sum() > 40
    assert (turned[..., :3][turned[..., 3] > 1 / 255] - 0.5).abs().max() < 1e-3


def test_placing_nothing_changes_nothing() -> None:
    rgba = picture(9, 10)
    placed, x, y = place(rgba)
    assert placed is rgba and (x, y) == (0, 0)


# --- mending ----------------------------------------------------------------------------------------------------------------------------


def test_defringe_gives_edges_the_colour_of_the_inside() -> None:
    clean = disc(96, 96, (0.9, 0.3, 0.1), (0.9, 0.3, 0.1), radius=30.0, soft=2.0)
    fringed = clean.clone()
    edge = (clean[..., 3] > 0) & (clean[..., 3] < 1)
    fringed[..., :3][edge] = 0.5 + (clean[..., :3][edge] - 0.5) * clean[..., 3][edge][:, None]  # mixed with grey
    mended = defringe(fringed, 2)
    seen = clean[..., 3] > 1 / 255
    assert torch.equal(mended[..., 3], fringed[..., 3])
    assert (fringed[seen] - clean[seen])[:, :3].abs().max() > 0.3
    assert (mended[seen] - clean[seen])[:, :3].abs().max() < 0.02


def test_defringe_leaves_glass_and_hair_alone() -> None:
    glass = picture(40, 40, seed=13)
    glass[..., 3] = 0.3
    assert torch.allclose(defringe(glass, 3), glass, atol=1e-6)
    hair = torch.zeros(1, 40, 40, 4)
    hair[:, 20, :, :] = torch.rand(40, 4, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.5
    assert torch.allclose(defringe(hair, 2), hair, atol=0.02)
    assert defringe(hair, 0) is hair


@given(st.floats(0.0, 0.4), st.floats(0.6, 1.0), st.floats(0.3, 3.0))
@settings(max_examples=30, deadline=None)
def test_levels_stretch_alpha_alone(black: float, white: float, gamma: float) -> None:
    rgba = picture(12, 12)
    levelled = alpha_levels(rgba, black, white, gamma)
    assert torch.equal(levelled[..., :3], rgba[..., :3])
    low, high = levelled[..., 3][rgba[..., 3] < black], levelled[..., 3][rgba[..., 3] > white]
    assert (low == 0).all() and (high == 1).all()
    assert torch.equal(alpha_levels(rgba), rgba)


@given(st.integers(0, 19), st.integers(0, 29), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_trimming_and_pasting_back_gives_the_picture(y: int, x: int, margin: int) -> None:
    rgba = torch.zeros(2, 20, 30, 4)
    rgba[0, y, x], rgba[1, 7, 11] = torch.tensor((1.0, 0.5, 0.25, 0.5)), torch.tensor((0.5, 1.0, 0.25, 1.0))
    trimmed, left, top = trim(rgba, margin)
    assert torch.equal(composite([Layer(trimmed, x=left, y=top)], 20, 30), rgba)
    assert trimmed.shape[1] <= abs(y - 7) + 1 + 2 * margin and trimmed.shape[2] <= abs(x - 11) + 1 + 2 * margin


def test_trimming_nothing_keeps_it() -> None:
    for alpha in (0.0, 0.4 / 255):
        empty = torch.full((1, 5, 6, 4), alpha)
        assert trim(empty) == (empty, 0, 0)


@pytest.mark.parametrize(
    ("haze", "threshold", "size"),
    [(0.4 / 255, INVISIBLE, (2, 3)), (0.6 / 255, INVISIBLE, (20, 30)), (5 / 255, 0.02, (2, 3)), (6 / 255, 0.02, (20, 30))],
)
def test_trimming_does_not_see_haze(haze: float, threshold: float, size: tuple[int, int]) -> None:
    rgba = torch.full((1, 20, 30, 4), haze)
    rgba[:, 7:9, 11:14, 3] = 0.5
    assert trim(rgba, threshold=threshold)[0].shape[1:3] == size
