"""Blend modes as psd-tools computes them, whose numbers are compared with Photoshop's."""

# pyright: reportMissingImports=false
from __future__ import annotations

import numpy as np
import pytest
import torch
from psd_tools import PSDImage
from psd_tools.composite import composite as psd_composite
from psd_tools.constants import BlendMode
from torch import Tensor

from lib_layerdiffuse.pixels.blend import BLENDS
from lib_layerdiffuse.pixels.composite import Layer, composite
from lib_layerdiffuse.pixels.premultiplied import premultiply
from tests.unit.test_compositing import CLOSE, picture, to_pil

PSD_MODES = {
    "normal": BlendMode.NORMAL,
    "multiply": BlendMode.MULTIPLY,
    "screen": BlendMode.SCREEN,
    "overlay": BlendMode.OVERLAY,
    "soft light": BlendMode.SOFT_LIGHT,
    "hard light": BlendMode.HARD_LIGHT,
    "add": BlendMode.LINEAR_DODGE,
    "darken": BlendMode.DARKEN,
    "lighten": BlendMode.LIGHTEN,
    "difference": BlendMode.DIFFERENCE,
    "exclusion": BlendMode.EXCLUSION,
    "colour dodge": BlendMode.COLOR_DODGE,
    "colour burn": BlendMode.COLOR_BURN,
    "linear burn": BlendMode.LINEAR_BURN,
    "vivid light": BlendMode.VIVID_LIGHT,
    "linear light": BlendMode.LINEAR_LIGHT,
    "pin light": BlendMode.PIN_LIGHT,
    "hard mix": BlendMode.HARD_MIX,
    "subtract": BlendMode.SUBTRACT,
    "divide": BlendMode.DIVIDE,
    "hue": BlendMode.HUE,
    "saturation": BlendMode.SATURATION,
    "colour": BlendMode.COLOR,
    "luminosity": BlendMode.LUMINOSITY,
}


def by_psd_tools(layers: list[Layer], height: int, width: int) -> Tensor:
    """The same layers through psd-tools' own compositor -> [1, height, width, 4], straight alpha."""
    document = PSDImage.new("RGBA", (width, height))
    for layer in layers:
        opacity = round(layer.opacity * 255)
        mode = PSD_MODES[layer.mode]
        document.create_pixel_layer(to_pil(layer.image), top=layer.y, left=layer.x, opacity=opacity, blend_mode=mode)
    colour, _, alpha = psd_composite(document)
    return torch.from_numpy(np.concatenate((colour, alpha), axis=-1))[None]


def test_every_mode_is_compared() -> None:
    assert [*PSD_MODES, "grain extract", "grain merge"] == sorted(BLENDS, key=lambda mode: mode.startswith("grain"))


@pytest.mark.parametrize("mode", PSD_MODES)
@pytest.mark.parametrize("opacity", [1.0, 100 / 255])
def test_blends_as_psd_tools_does(mode: str, opacity: float) -> None:
    layers = [
        Layer(picture(96, 128, seed=1)),
        Layer(picture(96, 128, seed=2), mode=mode, opacity=opacity),
        Layer(picture(50, 70, seed=3), mode=mode, opacity=opacity, x=-9, y=61),
    ]
    ours, theirs = composite(layers, 96, 128), by_psd_tools(layers, 96, 128)
    error = (premultiply(ours) - premultiply(theirs)).abs()
    # Burning jumps where what lies behind is exactly white, hard mix where the sum is, which rounding alone decides in a pixel or two.
    jumps = error > 0.5 / 255
    assert error[~jumps].mean() < CLOSE and jumps.float().mean() < 1e-4
