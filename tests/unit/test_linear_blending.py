"""Layers as ComfyUI's layer editor shows them: numbers that ComfyUI 0.46 gives, and the rule of what is transparent below."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lib_layerdiffuse.pixels.blend import BLENDS
from lib_layerdiffuse.pixels.composite import EDITOR, Layer, composite
from lib_layerdiffuse.pixels.linear_blend import LINEAR_BLENDS, to_linear, to_srgb

# Opaque (0.7, 0.3, 0.15) over opaque (0.2, 0.6, 0.8).
COLOURS = {
    "multiply": (0.127, 0.165, 0.111),
    "screen": (0.760, 0.720, 0.830),
    "overlay": (0.280, 0.440, 0.660),
    "darken": (0.200, 0.300, 0.150),
    "lighten": (0.700, 0.600, 0.800),
    "colour dodge": (0.667, 0.857, 0.941),
    "colour burn": (0.000, 0.000, 0.000),
    "hard light": (0.520, 0.360, 0.240),
    "soft light": (0.264, 0.504, 0.688),
    "difference": (0.500, 0.300, 0.650),
    "exclusion": (0.620, 0.540, 0.710),
    "add": (0.723, 0.659, 0.811),
    "linear burn": (0.000, 0.000, 0.000),
    "vivid light": (0.333, 0.333, 0.333),
    "pin light": (0.400, 0.600, 0.300),
    "linear light": (0.600, 0.200, 0.100),
    "hard mix": (0.000, 0.000, 0.000),
    "subtract": (0.000, 0.532, 0.788),
    "divide": (0.301, 1.000, 1.000),
    "grain extract": (0.000, 0.800, 1.000),
    "grain merge": (0.400, 0.400, 0.450),
    "hue": (0.800, 0.364, 0.200),
    "saturation": (0.171, 0.590, 0.800),
    "colour": (0.824, 0.353, 0.176),
    "luminosity": (0.146, 0.461, 0.618),
}
# mode, opacity, colour above, colour below, result
GREYS = [
    ("normal", 0.5, 0.0, 1.0, 0.735),
    ("normal", 0.5, 1.0, 0.0, 0.735),
    ("normal", 0.25, 0.0, 1.0, 0.881),
    ("normal", 0.75, 0.0, 1.0, 0.537),
    ("normal", 0.5, 0.5, 1.0, 0.802),
    ("multiply", 1.0, 0.5, 0.5, 0.237),
    ("multiply", 0.5, 0.5, 0.5, 0.396),
    ("screen", 1.0, 0.5, 0.5, 0.750),
    ("screen", 0.5, 0.5, 0.5, 0.641),
    ("add", 1.0, 0.3, 0.3, 0.419),
    ("add", 1.0, 0.5, 0.5, 0.686),
    ("subtract", 1.0, 0.5, 0.8, 0.658),
    ("divide", 1.0, 0.8, 0.5, 0.630),
    ("overlay", 1.0, 0.5, 0.25, 0.250),
]


def filled(*colour: float) -> Tensor:
    return torch.tensor(colour).expand(1, 2, 3, -1)


def shown(*layers: Layer) -> list[float]:
    result = composite(layers, 2, 3, blending=EDITOR)
    assert torch.allclose(result, result[:, :1, :1].expand_as(result), atol=1e-6)  # processors round in their own ways
    return result[0, 0, 0].tolist()


def test_every_mode_has_numbers() -> None:
    assert LINEAR_BLENDS.keys() == COLOURS.keys() == BLENDS.keys() - {"normal"}


@pytest.mark.parametrize("mode", COLOURS)
def test_colours(mode: str) -> None:
    below, above = Layer(filled(0.2, 0.6, 0.8)), Layer(filled(0.7, 0.3, 0.15), mode=mode)
    assert shown(below, above) == pytest.approx(COLOURS[mode], abs=1e-3)


@pytest.mark.parametrize(("mode", "opacity", "above", "below", "expected"), GREYS)
def test_greys(mode: str, opacity: float, above: float, below: float, expected: float) -> None:
    layer = Layer(filled(*[above] * 3), mode=mode, opacity=opacity)
    assert shown(Layer(filled(*[below] * 3)), layer) == pytest.approx([expected] * 3, abs=1e-3)
    assert shown(Layer(filled(*[below] * 3, 1.0)), layer) == pytest.approx([*[expected] * 3, 1.0], abs=1e-3)


def test_translucent_over_translucent() -> None:
    result = shown(Layer(filled(0.0, 0.0, 0.0, 0.5)), Layer(filled(1.0, 1.0, 1.0, 0.5)))
    assert result == pytest.approx([0.836, 0.836, 0.836, 0.75], abs=1e-3)


@pytest.mark.parametrize("mode", LINEAR_BLENDS)
def test_modes_draw_nothing_on_nothing_and_keep_alpha(mode: str) -> None:
    above = Layer(filled(0.7, 0.3, 0.55, 0.8), mode=mode)
    assert shown(above)[3] == 0.0  # a lowest layer as well
    assert shown(Layer(filled(0.2, 0.6, 0.8, 0.0)), above)[3] == 0.0
    assert shown(Layer(filled(0.2, 0.6, 0.8, 0.3)), above)[3] == pytest.approx(0.3)


@pytest.mark.parametrize("mode", BLENDS)
def test_colour_under_full_transparency_may_be_anything(mode: str) -> None:
    ground = Layer(filled(0.2, 0.6, 0.8))
    for wild in (torch.nan, torch.inf):
        assert shown(ground, Layer(filled(wild, wild, wild, 0.0), mode=mode)) == pytest.approx([0.2, 0.6, 0.8], abs=1e-6)


def test_sums_may_leave_the_range_between_layers() -> None:
    layers = [Layer(filled(0.9, 0.9, 0.9)), Layer(filled(0.9, 0.9, 0.9), mode="add"), Layer(filled(0.9, 0.9, 0.9), mode="subtract")]
    assert shown(*layers) == pytest.approx([0.9] * 3, abs=1e-3)


def test_linear_light_and_back() -> None:
    srgb = torch.linspace(-0.5, 1.5, 1001)
    assert torch.allclose(to_srgb(to_linear(srgb)), srgb, atol=1e-5)
    assert to_linear(torch.tensor(0.5)) == pytest.approx(0.2140411, abs=1e-6)
