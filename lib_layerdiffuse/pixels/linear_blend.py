"""Blend modes of ComfyUI's layer editor (since ComfyUI 0.31), which are GIMP's: the colour of a layer over what is behind it.

Colours are [..., 3] in linear light, and so are the results. Most formulae are computed in sRGB nevertheless. They are those of `blend.py`
but for soft light (Pegtop's), hue and saturation (by HSV), colour (by HSL), luminosity (by the luminance Y), and the sums, which may leave
[0, 1] until all layers are together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import blend
from .blend import Blend

LUMINANCE = (0.2224884, 0.71690369, 0.06060791)  # of linear sRGB primaries, adapted to D50
NEARLY_ZERO = 1e-6


def to_linear(srgb: Tensor) -> Tensor:
    """The transfer function of sRGB (IEC 61966-2-1), straight on below 0."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb.clamp(min=0.0) + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: Tensor) -> Tensor:
    """The inverse of `to_linear`."""
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp(min=0.0) ** (1.0 / 2.4) - 0.055)


def _encoded(formula: Blend) -> Blend:
    """A formula for sRGB as one for linear light."""

    def decoded(behind: Tensor, source: Tensor) -> Tensor:
        return to_linear(formula(to_srgb(behind), to_srgb(source)))

    return decoded


def _hard_light(behind: Tensor, source: Tensor) -> Tensor:
    return blend.hard_light(behind, source).clamp(max=1.0)


def _soft_light(behind: Tensor, source: Tensor) -> Tensor:
    return behind * (behind + 2.0 * source * (1.0 - behind))


def _add(behind: Tensor, source: Tensor) -> Tensor:
    return behind + source


def _linear_burn(behind: Tensor, source: Tensor) -> Tensor:
    return behind + source - 1.0


def _vivid_light(behind: Tensor, source: Tensor) -> Tensor:
    return torch.where(source <= 0.5, blend.colour_burn(behind, 2.0 * source), blend.colour_dodge(behind, 2.0 * source - 1.0))


def _linear_light(behind: Tensor, source: Tensor) -> Tensor:
    return behind + 2.0 * source - 1.0


def _hard_mix(behind: Tensor, source: Tensor) -> Tensor:
    return (behind + source >= 1.0).to(behind)


def _divide(behind: Tensor, source: Tensor) -> Tensor:
    return (behind / source.clamp(min=NEARLY_ZERO)).clamp(0.0, 1.0)


def _grain_extract(behind: Tensor, source: Tensor) -> Tensor:
    return behind - source + 0.5


def _grain_merge(behind: Tensor, source: Tensor) -> Tensor:
    return behind + source - 0.5


def _hue(behind: Tensor, source: Tensor) -> Tensor:
    """The source with the value and the chroma of what is behind it; grey has no hue."""
    chroma = _chroma(source)
    most = behind.amax(dim=-1, keepdim=True)
    moved = most + (source - source.amax(dim=-1, keepdim=True)) * _ratio(_chroma(behind), chroma)
    return torch.where(chroma <= NEARLY_ZERO, behind, moved)


def _saturation(behind: Tensor, source: Tensor) -> Tensor:
    """What is behind with the saturation of the source; grey stays grey."""
    most = behind.amax(dim=-1, keepdim=True)
    wanted = _ratio(_chroma(source), source.amax(dim=-1, keepdim=True)) * most
    chroma = _chroma(behind)
    return torch.where(chroma <= NEARLY_ZERO, most, most + (behind - most) * _ratio(wanted, chroma))


def _colour(behind: Tensor, source: Tensor) -> Tensor:
    """Hue and saturation of the source with the lightness of what is behind it."""
    wanted, lightness = _lightness(behind), _lightness(source)
    room, own_room = torch.minimum(wanted, 1.0 - wanted), torch.minimum(lightness, 1.0 - lightness)
    moved = wanted + (source - lightness) * _ratio(room, own_room)
    return torch.where(own_room.abs() <= NEARLY_ZERO, wanted, moved)


def _luminosity(behind: Tensor, source: Tensor) -> Tensor:
    """What is behind, as bright as the source; black stays black."""
    weights = behind.new_tensor(LUMINANCE)
    return behind * _ratio((source * weights).sum(-1, keepdim=True), (behind * weights).sum(-1, keepdim=True))


def _chroma(rgb: Tensor) -> Tensor:
    return rgb.amax(dim=-1, keepdim=True) - rgb.amin(dim=-1, keepdim=True)


def _lightness(rgb: Tensor) -> Tensor:
    return (rgb.amax(dim=-1, keepdim=True) + rgb.amin(dim=-1, keepdim=True)) / 2.0


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, 0 for a whole of nothing."""
    nothing = whole.abs() < NEARLY_ZERO
    return torch.where(nothing, 0.0, part / torch.where(nothing, 1.0, whole))


LINEAR_BLENDS: dict[str, Blend] = {
    "multiply": blend.multiply,
    "screen": _encoded(blend.screen),
    "overlay": _encoded(blend.overlay),
    "soft light": _encoded(_soft_light),
    "hard light": _encoded(_hard_light),
    "add": _add,
    "darken": torch.minimum,
    "lighten": torch.maximum,
    "difference": _encoded(blend.difference),
    "exclusion": _encoded(blend.exclusion),
    "colour dodge": _encoded(blend.colour_dodge),
    "colour burn": _encoded(blend.colour_burn),
    "linear burn": _encoded(_linear_burn),
    "vivid light": _encoded(_vivid_light),
    "linear light": _encoded(_linear_light),
    "pin light": _encoded(blend.pin_light),
    "hard mix": _encoded(_hard_mix),
    "subtract": blend.subtract,
    "divide": _divide,
    "grain extract": _encoded(_grain_extract),
    "grain merge": _encoded(_grain_merge),
    "hue": _encoded(_hue),
    "saturation": _encoded(_saturation),
    "colour": _encoded(_colour),
    "luminosity": _luminosity,
}
