"""Drop shadows lie where they are told, keep the weight of what casts them, and reach beyond its frame."""

from __future__ import annotations

import pytest
import torch

from lib_layerdiffuse.errors import DiaphaneError
from lib_layerdiffuse.pixels.composite import Layer, composite
from lib_layerdiffuse.pixels.shadow import drop_shadow, rgb

BLACK = (0.0, 0.0, 0.0)


def disc(side: int = 41, radius: float = 10.0) -> torch.Tensor:
    line = torch.arange(side) - side // 2
    rgba = torch.full((1, side, side, 4), 0.7)
    rgba[..., 3] = (radius + 0.5 - torch.hypot(line[:, None].float(), line.float())).clamp(0.0, 1.0)
    return rgba


def test_a_shadow_without_blur_is_the_shape_moved() -> None:
    layer = Layer(disc(), name="fox", mode="screen", opacity=0.5, x=3, y=4, visible=False)
    shadow = drop_shadow(layer, 5, -6, 0.0, 0.0, (1.0, 0.5, 0.0), 0.5)
    assert torch.equal(shadow.image[..., 3], layer.image[..., 3])
    assert torch.equal(shadow.image[0, 0, 0, :3], torch.tensor((1.0, 0.5, 0.0)))
    assert (shadow.name, shadow.mode, shadow.opacity, shadow.x, shadow.y, shadow.visible) == ("fox shadow", "normal", 0.25, 8, -2, False)


@pytest.mark.parametrize("blur", [2.0, 8.0, 20.0])
def test_blur_spreads_alpha_evenly_and_loses_none(blur: float) -> None:
    layer = Layer(disc())
    shadow = drop_shadow(layer, 0, 0, blur, 0.0, BLACK)
    alpha, before = shadow.image[0, ..., 3], layer.image[0, ..., 3]
    assert alpha.sum() == pytest.approx(before.sum().item(), rel=1e-4)
    assert torch.allclose(alpha, alpha.flip(0), atol=1e-5) and torch.allclose(alpha, alpha.T, atol=1e-5)
    # Variances of a shape and of what it is convolved with add up; the Gaussian, cut off at three sigmas, has 2.7 % less.
    across = torch.arange(alpha.shape[0]) + shadow.x - 20.0
    grown = (alpha.sum(dim=0) * across**2).sum() / alpha.sum() - (before.sum(dim=0) * (torch.arange(41) - 20.0) ** 2).sum() / before.sum()
    assert grown.item() == pytest.approx((blur / 2) ** 2, rel=0.05)


def test_spread_grows_the_shape_in_a_circle() -> None:
    shadow = drop_shadow(Layer(disc()), 0, 0, 12.0, 1.0, BLACK)
    side = shadow.image.shape[1]
    line = torch.arange(side) - side // 2
    distance = torch.hypot(line[:, None].float(), line.float())
    alpha = shadow.image[0, ..., 3]
    assert (alpha[distance <= 10 + 12 * 0.97] == 1).all() and (alpha[distance >= 11 + 12 * 1.09] == 0).all()
    soft = drop_shadow(Layer(disc()), 0, 0, 12.0, 0.5, BLACK).image[0, ..., 3]
    assert 0 < soft.max() <= 1 and alpha.sum() > soft.sum() > disc()[..., 3].sum()


def test_a_shadow_reaches_beyond_the_frame() -> None:
    full = Layer(torch.ones(2, 10, 10, 3), x=20, y=20)
    shadow = drop_shadow(full, 4, 4, 6.0, 0.0, BLACK)
    seen = composite((Layer(torch.ones(1, 50, 50, 3)), shadow, full), 50, 50)
    assert seen.shape == (2, 50, 50, 3)
    assert (seen[:, 20:30, 20:30] == 1).all() and (seen[:, 30:34, 26:34] < 0.7).all() and (seen[:, :12] == 1).all()


@pytest.mark.parametrize("wrong", ["black", "#fff", "#12345g", "", "# 12345"])
def test_colours_are_six_digits(wrong: str) -> None:
    assert rgb("#fF8000") == (1.0, 128 / 255, 0.0)
    with pytest.raises(DiaphaneError, match="#rrggbb"):
        rgb(wrong)
