"""Bringing a picture to a size whose proportions it may not have."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

CROP = "crop"
FIT = "fit"
STRETCH = "stretch"
FITS = (CROP, FIT, STRETCH)


def fit_to(x: Tensor, height: int, width: int, how: str = CROP, fill: Tensor | float = 0.0) -> Tensor:
    """[B, C, H, W] -> [B, C, height, width], smoothed when it shrinks.

    how: "crop" fills the size and cuts the rest off, evenly on both sides; "fit" shows the whole picture and fills the rest with `fill`
    (a number or [C]); "stretch" changes the proportions.
    """
    if x.shape[2:] == (height, width):
        return x
    if how == STRETCH:
        return _resize(x, height, width)
    scales = (height / x.shape[2], width / x.shape[3])
    scale = max(scales) if how == CROP else min(scales)
    x = _resize(x, max(1, round(x.shape[2] * scale)), max(1, round(x.shape[3] * scale)))
    if how == CROP:
        top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
        return x[:, :, top : top + height, left : left + width]
    result = x.new_empty(*x.shape[:2], height, width)
    result[:] = fill.to(x).view(1, -1, 1, 1) if isinstance(fill, Tensor) else fill
    top, left = (height - x.shape[2]) // 2, (width - x.shape[3]) // 2
    result[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x
    return result


def _resize(x: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False, antialias=True)
