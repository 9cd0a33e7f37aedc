"""Colour carried under transparent pixels (FACTS section 5).

Cut-outs have no colour where they are transparent, and whatever stands there instead fringes the edges as soon as the picture is
resized, encoded or filtered. The method pads colour outwards, over a pyramid of ever coarser averages, before a network sees it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SHRINK = 1.2  # from one level of the pyramid to the next
EPSILON = 1e-8


def bleed_rgb(rgba: Tensor) -> Tensor:
    """Opaque colour for every pixel: rgba [B, H, W, 4] in [0, 1] -> [B, H, W, 3], float32, on the input's device.

    Opaque pixels keep their colour; transparent ones take that of their surroundings; a wholly transparent picture becomes black.
    """
    rgba = rgba.movedim(-1, 1).float()  # BHWC -> BCHW
    alpha = rgba[:, 3:4]
    levels = [torch.cat((rgba[:, :3] * alpha, alpha), dim=1)]
    while min(levels[-1].shape[2:]) > 1:
        levels.append(_shrink(levels[-1]))

    total = levels[-1].sum(dim=(2, 3), keepdim=True)
    filled = total[:, :3] / total[:, 3:4].clamp(min=EPSILON)
    for level in reversed(levels):
        filled = F.interpolate(filled, size=level.shape[2:], mode="bilinear", align_corners=False)
        filled = level[:, :3] + filled * (1.0 - level[:, 3:4])
    return filled.movedim(1, -1)


def _shrink(x: Tensor) -> Tensor:
    height, width = (int(side / SHRINK) for side in x.shape[2:])
    return _resize_area(_resize_area(x, height, dim=2), width, dim=3)


def _resize_area(x: Tensor, size: int, dim: int) -> Tensor:
    """Shrink one dimension by exact coverage: each target cell is the mean of the source cells it covers, whole or in part."""
    index, weight = _coverage(x.shape[dim], size, x)
    shape = [1] * x.ndim
    shape[dim] = size
    out = x.index_select(dim, index[0]) * weight[0].view(shape)
    for i, w in zip(index[1:], weight[1:], strict=True):
        out.addcmul_(x.index_select(dim, i), w.view(shape))
    return out


def _coverage(source: int, target: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Source cells under each target cell and their shares: index and weight [taps, target]; weights sum to one."""
    scale = source / target
    start = torch.arange(target, dtype=torch.float64) * scale
    end = start + scale
    taps = int(scale) + 2
    cell = start.floor() + torch.arange(taps, dtype=torch.float64)[:, None]
    weight = (torch.minimum(end, cell + 1) - torch.maximum(start, cell)).clamp(min=0.0) / scale
    index = cell.clamp(max=source - 1).long()
    return index.to(like.device), weight.to(like)
