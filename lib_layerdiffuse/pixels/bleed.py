"""Colour carried under transparent pixels (docs/facts.md section 5).

Cut-outs have no colour where they are transparent, and the values there fringe the edges when the picture is resized, encoded or
filtered. The method fills in colour from outside in, over a pyramid of coarser and coarser averages, before a network gets the picture.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SHRINK = 1.2  # from one level of the pyramid to the next
EPSILON = 1e-8


def bleed_rgb(rgba: Tensor) -> Tensor:
    """Opaque colour for every pixel: rgba [B, H, W, 4] in [0, 1] -> [B, H, W, 3], float32, on the input's device.

    Opaque pixels keep their colour; transparent ones get that of their surroundings; a wholly transparent picture becomes black.
    """
    rgba = rgba.float().movedim(-1, 1)  # BHWC -> BCHW
    alpha = rgba[:, 3:]
    levels = [torch.cat((rgba[:, :3] * alpha, alpha), dim=1)]
    while min(levels[-1].shape[2:]) > 1:
        height, width = (int(side / SHRINK) for side in levels[-1].shape[2:])
        levels.append(_shrink(_shrink(levels[-1], height, dim=2), width, dim=3))

    total = levels[-1].sum(dim=(2, 3), keepdim=True)
    filled = total / total[:, 3:].clamp(min=EPSILON)
    for level in reversed(levels):
        filled = F.interpolate(filled, size=level.shape[2:], mode="bilinear", align_corners=False)
        filled = filled * (1.0 - level[:, 3:]) + level
    return filled[:, :3].movedim(1, -1)  # BCHW -> BHWC


def _shrink(x: Tensor, target: int, dim: int) -> Tensor:
    """Means over the rows (dim 2) or columns (dim 3) of [B, C, H, W] that each of `target` ones covers, whole or in part."""
    source = x.shape[dim]
    scale = source / target
    start = torch.arange(target, dtype=torch.float64) * scale
    result = x.new_zeros(())
    for tap in range(int(scale) + 2):
        row = start.floor() + tap
        weight = (torch.minimum(start + scale, row + 1) - torch.maximum(start, row)).clamp(min=0.0) / scale
        index = row.clamp(max=source - 1).long().to(x.device)
        # Type before device: Apple's GPUs have no float64.
        weight = weight.to(x.dtype).to(x.device).unflatten(0, (-1, *[1] * (3 - dim)))
        result = result + x.index_select(dim, index) * weight
    return result
