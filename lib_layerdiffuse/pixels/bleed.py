"""Colour carried under transparent pixels (docs/facts.md section 5).

Cut-outs have no colour where they are transparent, and whatever stands there instead fringes the edges as soon as the picture is
resized, encoded or filtered. The method pads colour outwards, over a pyramid of ever coarser averages, before a network sees it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

SHRINK = 1.2  # from one level of the pyramid to the next
EPSILON = 1e-8

# Number of rows and of target rows -> for each target row the rows it is made of and their shares: index and share [target, taps].
Shares = Callable[[int, int], tuple[Tensor, Tensor]]


def bleed_rgb(rgba: Tensor) -> Tensor:
    """Opaque colour for every pixel: rgba [B, H, W, 4] in [0, 1] -> [B, H, W, 3], float32, on the input's device.

    Opaque pixels keep their colour; transparent ones take that of their surroundings; a wholly transparent picture becomes black.
    """
    rgba = rgba.float().transpose(0, 1)  # BHWC -> HBWC
    alpha = rgba[..., 3:]
    levels = [torch.cat((rgba[..., :3] * alpha, alpha), dim=-1)]
    while min(levels[-1].shape[0], levels[-1].shape[2]) > 1:
        height, width = (int(levels[-1].shape[side] / SHRINK) for side in (0, 2))
        levels.append(_resize(levels[-1], height, width, _covered))

    total = levels[-1].sum(dim=(0, 2), keepdim=True)
    filled = total / total[..., 3:].clamp(min=EPSILON)
    for level in reversed(levels):
        filled = _resize(filled, level.shape[2], level.shape[0], _between)
        filled = (filled * (1.0 - level[..., 3:])).add_(level)
    return filled[..., :3].transpose(0, 1)


def _resize(x: Tensor, height: int, width: int, shares: Shares) -> Tensor:
    """[H, B, W, 4] -> [width, B, height, 4].

    The sides change places: both are resized as rows then, each of which lies in one piece, and nothing has to be turned back.
    """
    return _mix_rows(_turned(_mix_rows(x, height, shares)), width, shares)


def _turned(x: Tensor) -> Tensor:
    """[H, B, W, 4] -> [W, B, H, 4]."""
    if x.device.type != "cpu":
        return x.transpose(0, 2).contiguous()
    # The four values of a pixel move as one that is as long: half the time.
    return x.view(torch.complex128).transpose(0, 2).contiguous().view(torch.float32)


def _mix_rows(x: Tensor, count: int, shares: Shares) -> Tensor:
    """So many weighted sums of the rows of [H, ...]."""
    index, share = shares(len(x), count)
    mix = _mix_in_one_go if x.device.type == "cpu" else _mix_in_turn
    # Type before device: Apple's GPUs have no float64.
    return mix(x.flatten(1), index.to(x.device), share.to(x.dtype).to(x.device)).unflatten(1, x.shape[1:])


def _mix_in_one_go(rows: Tensor, index: Tensor, share: Tensor) -> Tensor:
    """Half the time on a processor; not every other device can do it."""
    return F.embedding_bag(index, rows, mode="sum", per_sample_weights=share)


def _mix_in_turn(rows: Tensor, index: Tensor, share: Tensor) -> Tensor:
    mixed = rows[index[:, 0]] * share[:, :1]
    for i, s in zip(index.T[1:], share.T[1:], strict=True):
        mixed.addcmul_(rows[i], s[:, None])
    return mixed


def _covered(source: int, target: int) -> tuple[Tensor, Tensor]:
    """Means of the rows that each target row covers, whole or in part."""
    scale = source / target
    start = torch.arange(target, dtype=torch.float64)[:, None] * scale
    end = start + scale
    row = start.floor() + torch.arange(int(scale) + 2, dtype=torch.float64)
    share = (torch.minimum(end, row + 1) - torch.maximum(start, row)).clamp(min=0.0) / scale
    return row.clamp(max=source - 1).long(), share


def _between(source: int, target: int) -> tuple[Tensor, Tensor]:
    """What lies between the centres of the two nearest rows, in proportion."""
    centre = (torch.arange(target, dtype=torch.float64) + 0.5) * (source / target) - 0.5
    centre = centre.clamp(min=0.0, max=source - 1)
    above = centre.floor()
    share = centre - above
    return torch.stack((above, (above + 1).clamp(max=source - 1)), dim=1).long(), torch.stack((1 - share, share), dim=1)
