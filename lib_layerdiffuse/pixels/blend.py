"""Blend modes: the colour of a layer over what is behind it.

The formulae are those of the W3C's Compositing and Blending Level 1, sections 9 (separable) and 10 (non-separable). "add" is the sum,
which paint programs call linear dodge. From linear burn to divide they are Photoshop's, and the two of grain are GIMP's. Colours are
[..., 3] in [0, 1], encoded as sRGB; `composite.py` does alpha.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Blend = Callable[[Tensor, Tensor], Tensor]

LUMINANCE = (0.3, 0.59, 0.11)
LEAST_DIVISOR = 1e-7


def normal(behind: Tensor, source: Tensor) -> Tensor:
    return source


def multiply(behind: Tensor, source: Tensor) -> Tensor:
    return behind * source


def screen(behind: Tensor, source: Tensor) -> Tensor:
    return behind + source - behind * source


def hard_light(behind: Tensor, source: Tensor) -> Tensor:
    return torch.where(source <= 0.5, multiply(behind, 2.0 * source), screen(behind, 2.0 * source - 1.0))


def overlay(behind: Tensor, source: Tensor) -> Tensor:
    return hard_light(source, behind)


def soft_light(behind: Tensor, source: Tensor) -> Tensor:
    dark = behind - (1.0 - 2.0 * source) * behind * (1.0 - behind)
    curve = torch.where(behind <= 0.25, ((16.0 * behind - 12.0) * behind + 4.0) * behind, behind.sqrt())
    return torch.where(source <= 0.5, dark, behind + (2.0 * source - 1.0) * (curve - behind))


def add(behind: Tensor, source: Tensor) -> Tensor:
    return (behind + source).clamp(max=1.0)


def colour_dodge(behind: Tensor, source: Tensor) -> Tensor:
    dodged = (behind / (1.0 - source).clamp(min=LEAST_DIVISOR)).clamp(max=1.0)
    return torch.where(behind <= 0.0, 0.0, torch.where(source >= 1.0, 1.0, dodged))


def colour_burn(behind: Tensor, source: Tensor) -> Tensor:
    burnt = 1.0 - ((1.0 - behind) / source.clamp(min=LEAST_DIVISOR)).clamp(max=1.0)
    return torch.where(behind >= 1.0, 1.0, torch.where(source <= 0.0, 0.0, burnt))


def linear_burn(behind: Tensor, source: Tensor) -> Tensor:
    return (behind + source - 1.0).clamp(min=0.0)


def vivid_light(behind: Tensor, source: Tensor) -> Tensor:
    """Burns by dark colours and dodges by light ones; unlike colour burn and colour dodge, black and white hide what lies behind."""
    burnt = 1.0 - ((1.0 - behind) / (2.0 * source).clamp(min=LEAST_DIVISOR)).clamp(max=1.0)
    dodged = (behind / (2.0 - 2.0 * source).clamp(min=LEAST_DIVISOR)).clamp(max=1.0)
    ends = torch.where(source >= 1.0, 1.0, 0.0)
    return torch.where((source <= 0.0) | (source >= 1.0), ends, torch.where(source <= 0.5, burnt, dodged))


def linear_light(behind: Tensor, source: Tensor) -> Tensor:
    return (behind + 2.0 * source - 1.0).clamp(0.0, 1.0)


def pin_light(behind: Tensor, source: Tensor) -> Tensor:
    return torch.where(source > 0.5, torch.maximum(behind, 2.0 * source - 1.0), torch.minimum(behind, 2.0 * source))


def hard_mix(behind: Tensor, source: Tensor) -> Tensor:
    total = behind + source
    return ((total > 1.0) | ((total == 1.0) & (behind > 0.5))).to(total)


def subtract(behind: Tensor, source: Tensor) -> Tensor:
    return (behind - source).clamp(min=0.0)


def divide(behind: Tensor, source: Tensor) -> Tensor:
    return (behind / source.clamp(min=LEAST_DIVISOR)).clamp(max=1.0)


def grain_extract(behind: Tensor, source: Tensor) -> Tensor:
    return (behind - source + 0.5).clamp(0.0, 1.0)


def grain_merge(behind: Tensor, source: Tensor) -> Tensor:
    return (behind + source - 0.5).clamp(0.0, 1.0)


def difference(behind: Tensor, source: Tensor) -> Tensor:
    return (behind - source).abs()


def exclusion(behind: Tensor, source: Tensor) -> Tensor:
    return behind + source - 2.0 * behind * source


def hue(behind: Tensor, source: Tensor) -> Tensor:
    return _with_luminosity(_with_saturation(source, _saturation(behind)), _luminosity(behind))


def saturation(behind: Tensor, source: Tensor) -> Tensor:
    return _with_luminosity(_with_saturation(behind, _saturation(source)), _luminosity(behind))


def colour(behind: Tensor, source: Tensor) -> Tensor:
    return _with_luminosity(source, _luminosity(behind))


def luminosity(behind: Tensor, source: Tensor) -> Tensor:
    return _with_luminosity(behind, _luminosity(source))


NORMAL = "normal"
GRAIN = {"grain extract", "grain merge"}  # GIMP's and Krita's alone
BLENDS: dict[str, Blend] = {
    NORMAL: normal,
    "multiply": multiply,
    "screen": screen,
    "overlay": overlay,
    "soft light": soft_light,
    "hard light": hard_light,
    "add": add,
    "darken": torch.minimum,
    "lighten": torch.maximum,
    "difference": difference,
    "exclusion": exclusion,
    "colour dodge": colour_dodge,
    "colour burn": colour_burn,
    "linear burn": linear_burn,
    "vivid light": vivid_light,
    "linear light": linear_light,
    "pin light": pin_light,
    "hard mix": hard_mix,
    "subtract": subtract,
    "divide": divide,
    "grain extract": grain_extract,
    "grain merge": grain_merge,
    "hue": hue,
    "saturation": saturation,
    "colour": colour,
    "luminosity": luminosity,
}


def _luminosity(rgb: Tensor) -> Tensor:
    return (rgb * rgb.new_tensor(LUMINANCE)).sum(dim=-1, keepdim=True)


def _saturation(rgb: Tensor) -> Tensor:
    return rgb.amax(dim=-1, keepdim=True) - rgb.amin(dim=-1, keepdim=True)


def _with_saturation(rgb: Tensor, wanted: Tensor) -> Tensor:
    """Spread the channels, from the least at 0 to the greatest at `wanted`; grey becomes black."""
    return (rgb - rgb.amin(dim=-1, keepdim=True)) * (wanted / _saturation(rgb).clamp(min=LEAST_DIVISOR))


def _with_luminosity(rgb: Tensor, wanted: Tensor) -> Tensor:
    """Shift all channels to a luminosity, then scale them towards it until they are in [0, 1]."""
    rgb = rgb + (wanted - _luminosity(rgb))
    least, most = rgb.amin(dim=-1, keepdim=True), rgb.amax(dim=-1, keepdim=True)
    rgb = torch.where(least < 0.0, wanted + (rgb - wanted) * wanted / (wanted - least).clamp(min=LEAST_DIVISOR), rgb)
    rgb = torch.where(most > 1.0, wanted + (rgb - wanted) * (1.0 - wanted) / (most - wanted).clamp(min=LEAST_DIVISOR), rgb)
    return rgb.clamp(0.0, 1.0)
