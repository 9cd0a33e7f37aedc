"""Mending alpha: fringes, levels, empty borders. Pictures are [B, H, W, 4], straight alpha, in [0, 1]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DiaphaneError
from .bleed import bleed_rgb
from .boxes import box_around, cut_to
from .straight import mask_planes, resize_mask

TRACE = 1e-3  # least weight of colour, for where there is no inside, as in lines one pixel wide
INVISIBLE = 0.5 / 255  # alpha that a file of 8 bits holds as 0
LEAST_RANGE = 1e-6  # between black and white; less than the step between two alphas of any file


def defringe(rgba: Tensor, width: int) -> Tensor:
    """Give the edges the colour `width` pixels further inside. Alpha, and colour away from edges, do not change.

    A pixel is inside where its surroundings are as opaque as itself: evenly translucent glass is inside everywhere. Where no inside is
    near, as in hair, nothing changes.
    """
    if width <= 0:
        return rgba
    alpha = rgba[..., 3].float()
    inside = (_least(alpha, width) / alpha.clamp(min=TRACE)).clamp(0.0, 1.0)
    near = _greatest(inside, 2 * width + 1)
    carried = bleed_rgb(torch.cat((rgba[..., :3].float(), (inside * alpha).clamp(min=TRACE * alpha)[..., None]), dim=-1))
    weight = (near * (1.0 - inside))[..., None]
    return torch.cat((torch.lerp(rgba[..., :3].float(), carried.clamp(0.0, 1.0), weight).to(rgba), rgba[..., 3:4]), dim=-1)


def _greatest(x: Tensor, radius: int) -> Tensor:
    return F.max_pool2d(x[:, None], 2 * radius + 1, stride=1, padding=radius)[:, 0]


def _least(x: Tensor, radius: int) -> Tensor:
    return -_greatest(-x, radius)


def alpha_levels(rgba: Tensor, black: float = 0.0, white: float = 1.0, gamma: float = 1.0) -> Tensor:
    """Alpha up to `black` becomes 0, from `white` on 1. Gamma above 1 makes values in between more opaque.

    Raises DiaphaneError unless black < white.
    """
    if black >= white:
        raise DiaphaneError(f"Repair Alpha needs black below white, got black {black:g} and white {white:g}. Lower black or raise white.")
    alpha = ((rgba[..., 3:4] - black) / max(white - black, LEAST_RANGE)).clamp(0.0, 1.0) ** (1.0 / gamma)
    return torch.cat((rgba[..., :3], alpha), dim=-1)


def keep_area(rgba: Tensor, area: Tensor) -> Tensor:
    """Alpha times an area, 1 = keep what is here: a mask [B or 1, h, w], resized to the pictures. Where it is 1 nothing changes.

    Raises DiaphaneError for batches that do not go together.
    """
    planes = mask_planes(area).to(rgba).clamp(0.0, 1.0)
    if 1 not in (len(rgba), len(planes)) and len(rgba) != len(planes):
        raise DiaphaneError(f"Repair Alpha got {len(rgba)} pictures and {len(planes)} areas. Connect as many areas as pictures, or one.")
    alpha = rgba[..., 3:4] * resize_mask(planes, *rgba.shape[1:3]).movedim(1, -1)
    return torch.cat((rgba[..., :3].expand(*alpha.shape[:3], 3), alpha), dim=-1)


def keep_extremes(resized: Tensor, alpha: Tensor, reach: int = 2) -> Tensor:
    """Set an enlarged alpha to 0 or 1 again where the original is 0 or 1 far from any edge.

    resized [B, H, W], alpha [B, h, w] that it was made from, reach: pixels of `alpha` that an edge acts across. -> [B, H, W]
    """
    size = resized.shape[1:]
    nothing, everything = (
        F.interpolate(x[:, None].float(), size=size, mode="nearest")[:, 0] > 0.5
        for x in (_greatest(alpha, reach) <= 0.0, _least(alpha, reach) >= 1.0)
    )
    return resized.masked_fill(nothing, 0.0).masked_fill(everything, 1.0)


def trim(rgba: Tensor, margin: int = 0, threshold: float = INVISIBLE) -> tuple[Tensor, int, int]:
    """Cut off the transparent border: (picture, x, y), x and y being where its top left corner lay.

    Only alpha above `threshold` is kept. One box holds all pictures of a batch. A wholly transparent picture stays as it is.
    """
    there = (rgba[..., 3] > threshold).any(dim=0)
    return cut_to(rgba, box_around(there), margin) if there.any() else (rgba, 0, 0)
