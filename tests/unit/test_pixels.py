"""RGBA arithmetic: properties that hold for every picture."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib_layerdiffuse.errors import DiaphaneError
from lib_layerdiffuse.pixels.backdrop import BACKDROPS, over_backdrop
from lib_layerdiffuse.pixels.bleed import bleed_rgb
from lib_layerdiffuse.pixels.coverage import coverage
from lib_layerdiffuse.pixels.fit import FITS, fit_to
from lib_layerdiffuse.pixels.straight import FAINT, PLAIN, off_grey, on_grey, transparency_mask, with_alpha

sizes = st.tuples(st.integers(1, 70), st.integers(1, 70))


def picture(height: int, width: int, batch: int = 1, seed: int = 0) -> Tensor:
    return torch.rand(batch, height, width, 4, generator=torch.Generator().manual_seed(seed))


@given(sizes, st.integers(0, 100))
@settings(max_examples=50, deadline=None)
def test_bleed_keeps_opaque_pixels_and_range(size: tuple[int, int], seed: int) -> None:
    rgba = picture(*size, seed=seed)
    rgba[..., 3] = (rgba[..., 3] > 0.5).float()
    filled = bleed_rgb(rgba)
    opaque = rgba[..., 3] == 1
    assert filled.shape == (1, *size, 3) and filled.dtype == torch.float32
    assert torch.allclose(filled[opaque], rgba[..., :3][opaque], atol=1e-6)
    assert filled.min() >= -1e-5 and filled.max() <= 1 + 1e-5


@given(sizes)
@settings(max_examples=30, deadline=None)
def test_bleed_of_one_colour_is_that_colour(size: tuple[int, int]) -> None:
    rgba = picture(*size)
    rgba[..., :3] = torch.tensor((0.2, 0.5, 0.9))
    rgba[0, 0, 0, 3] = 1.0  # at least one pixel is there to be seen
    assert torch.allclose(bleed_rgb(rgba), rgba[..., :3], atol=1e-5)


def test_bleed_of_nothing_is_black() -> None:
    rgba = picture(33, 17)
    rgba[..., 3] = 0
    assert torch.equal(bleed_rgb(rgba), torch.zeros(1, 33, 17, 3))


def test_bleed_of_a_batch_is_that_of_its_pictures() -> None:
    rgba = picture(40, 25, batch=3)
    assert torch.allclose(bleed_rgb(rgba), torch.cat([bleed_rgb(one) for one in rgba.split(1)]), atol=1e-6)


def test_bleed_takes_half_precision() -> None:
    rgba = picture(20, 30)
    assert torch.allclose(bleed_rgb(rgba.half()), bleed_rgb(rgba), atol=2e-3)


def test_masks_have_the_hosts_polarity() -> None:
    image = picture(4, 4)[..., :3]
    mask = torch.zeros(1, 4, 4)
    mask[0, :2] = 1.0  # 1 = transparent
    rgba = with_alpha(image, mask)
    assert torch.equal(rgba[0, :2, :, 3], torch.zeros(2, 4)) and torch.equal(rgba[0, 2:, :, 3], torch.ones(2, 4))
    assert torch.equal(transparency_mask(rgba), mask)


def test_a_picture_without_alpha_or_mask_is_opaque() -> None:
    image = picture(4, 4)[..., :3]
    assert torch.equal(with_alpha(image)[..., 3], torch.ones(1, 4, 4))


def test_the_empty_mask_of_load_image_changes_nothing() -> None:
    rgba = picture(30, 50, batch=2)
    assert torch.equal(with_alpha(rgba, torch.zeros(1, 64, 64)), rgba)


def test_mask_and_alpha_multiply() -> None:
    rgba = picture(8, 8)
    assert torch.allclose(with_alpha(rgba, torch.full((8, 8), 0.25))[..., 3], rgba[..., 3] * 0.75)


def test_one_mask_for_many_pictures_and_many_masks_for_one() -> None:
    image, masks = picture(4, 6, batch=3), torch.rand(3, 4, 6)
    assert torch.equal(with_alpha(image, masks[:1])[2], with_alpha(image[2:], masks[:1])[0])
    assert torch.equal(with_alpha(image[:1], masks)[2], with_alpha(image[:1], masks[2:])[0])
    with pytest.raises(DiaphaneError, match="Got 3 pictures and 2 masks"):
        with_alpha(image, masks[:2])


def test_grey_pictures_and_other_channels() -> None:
    grey = picture(4, 4)[..., :1]
    assert torch.equal(with_alpha(grey)[..., :3], grey.expand(-1, -1, -1, 3))
    with pytest.raises(DiaphaneError, match=r"got \[1, 4, 4, 2\]"):
        with_alpha(picture(4, 4)[..., :2])
    with pytest.raises(DiaphaneError, match=r"got \[4, 4, 3\]"):
        with_alpha(picture(4, 4)[0, ..., :3])


def test_off_grey_undoes_on_grey_where_there_is_enough_to_see() -> None:
    rgba, other = picture(9, 40, seed=1), picture(9, 40, seed=2)
    alpha = torch.linspace(0, 1, 40).expand(1, 9, 40)
    rgba[..., 3] = other[..., 3] = alpha
    found = off_grey(on_grey(rgba), other)
    assert torch.allclose(found[alpha >= PLAIN], rgba[alpha >= PLAIN], atol=1e-6)
    assert torch.equal(found[alpha <= FAINT], other[alpha <= FAINT])
    # An error of what is seen is never enlarged by more than this, and never leaves the range.
    worse = off_grey((on_grey(rgba) + 0.01).clamp(0, 1), other)
    assert (worse - found).abs().max() <= 0.01 / FAINT and worse.min() >= 0 and worse.max() <= 1


def test_on_grey() -> None:
    rgba = picture(5, 5)
    assert torch.allclose(on_grey(rgba), 0.5 + (rgba[..., :3] - 0.5) * rgba[..., 3:])
    rgba[..., 3] = 0
    assert torch.equal(on_grey(rgba), torch.full((1, 5, 5, 3), 0.5))


@given(sizes, sizes, st.sampled_from(FITS))
@settings(max_examples=80, deadline=None)
def test_fit_gives_the_size_and_invents_no_values(source: tuple[int, int], target: tuple[int, int], how: str) -> None:
    x = torch.rand(2, 3, *source)
    fitted = fit_to(x, *target, how, fill=0.5)
    assert fitted.shape == (2, 3, *target)
    assert fitted.min() >= min(x.min().item(), 0.5) - 1e-5 and fitted.max() <= max(x.max().item(), 0.5) + 1e-5


def test_fit_shows_everything_and_crop_fills_everything() -> None:
    x = torch.zeros(1, 1, 10, 20)
    x[..., 0] = x[..., -1] = 1.0
    shown = fit_to(x, 20, 20, "fit", fill=0.5)
    assert torch.equal(shown[0, 0, :5], torch.full((5, 20), 0.5)) and torch.equal(shown[0, 0, 5:15], x[0, 0])
    assert fit_to(x, 20, 20, "crop").max() == 0.0  # the bright edges lie outside
    filled = fit_to(torch.zeros(1, 2, 4, 4), 4, 8, "fit", fill=torch.tensor((1.0, 2.0)))
    assert filled[0, :, 0, 0].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("backdrop", BACKDROPS)
def test_backdrops_show_only_through_transparency(backdrop: str) -> None:
    rgba = picture(16, 24)
    rgba[..., 3] = 1
    assert torch.equal(over_backdrop(rgba, backdrop, 8), rgba[..., :3])
    rgba[..., 3] = 0
    values = set(over_backdrop(rgba, backdrop, 8).unique().tolist())
    assert values == ({0.44999998807907104, 0.550000011920929} if backdrop == "checkerboard" else values)
    assert len(values) == (2 if backdrop in ("checkerboard", "red", "green", "blue") else 1)


def test_coverage() -> None:
    rgba = torch.zeros(1, 4, 1, 4)
    rgba[0, :, 0, 3] = torch.tensor((0.0, 0.5, 1.0, 1.0))
    assert str(coverage(rgba)) == "50% opaque, 25% translucent, 25% transparent"
