"""Premultiplied alpha: the form in which pixels of a transparent picture may be averaged.

Straight colour under transparent pixels is arbitrary, so a mean that includes it darkens or fringes every edge. Resizing, turning and
blurring happen between `premultiply` and `straighten`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-6


def premultiply(rgba: Tensor) -> Tensor:
    """Straight [B, H, W, 4] -> [B, H, W, 4] whose colour is multiplied by alpha."""
    return torch.cat((rgba[..., :3] * rgba[..., 3:4], rgba[..., 3:4]), dim=-1)


def straighten(premultiplied: Tensor) -> Tensor:
    """The inverse of `premultiply`, in [0, 1]: black where alpha is zero, whose colour is lost.

    Alpha may be outside [0, 1] after a filter that sharpens; colour is divided by that alpha, so that it does not become brighter.
    """
    alpha = premultiplied[..., 3:4]
    colour = torch.where(alpha > EPSILON, premultiplied[..., :3] / alpha.clamp(min=EPSILON), 0.0)
    return torch.cat((colour, alpha), dim=-1).clamp(0.0, 1.0)


def resize_rgba(image: Tensor, height: int, width: int) -> Tensor:
    """[B, H, W, 3 or 4], straight -> [B, height, width, 3 or 4], float32, bicubic, smoothed when it shrinks; nothing darkens or fringes."""
    if image.shape[1:3] == (height, width):
        return image
    image = image.float()
    pixels = premultiply(image) if image.shape[-1] == 4 else image
    resized = F.interpolate(pixels.movedim(-1, 1), size=(height, width), mode="bicubic", align_corners=False, antialias=True)
    resized = resized.movedim(1, -1)  # BCHW -> BHWC
    return straighten(resized) if image.shape[-1] == 4 else resized.clamp(0.0, 1.0)
