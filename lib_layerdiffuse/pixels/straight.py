"""Straight alpha: pictures, masks and opaque backgrounds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def with_alpha(image: Tensor, transparency: Tensor | None = None) -> Tensor:
    """RGBA of a picture and what is known about its transparency.

    image [B, H, W, 3 or 4]; without an alpha channel it counts as opaque. transparency: ComfyUI mask [B or 1, h, w], 1 = transparent,
    resized to the picture; both alphas multiply. -> [B, H, W, 4]
    """
    rgb = image[..., :3]
    alpha = image[..., 3:4] if image.shape[-1] == 4 else torch.ones_like(image[..., :1])
    if transparency is not None:
        mask = transparency.reshape(-1, 1, *transparency.shape[-2:]).to(image)
        if mask.shape[2:] != image.shape[1:3]:
            mask = F.interpolate(mask, size=image.shape[1:3], mode="bilinear", align_corners=False)
        alpha = alpha * (1.0 - mask.movedim(1, -1))
    return torch.cat((rgb, alpha), dim=-1)


def on_grey(rgba: Tensor) -> Tensor:
    """Composite on mid-grey, as the method sees transparent pictures: [B, H, W, 4] -> [B, H, W, 3] (FACTS section 2)."""
    return 0.5 + (rgba[..., :3] - 0.5) * rgba[..., 3:4]


def transparency_mask(rgba: Tensor) -> Tensor:
    """ComfyUI mask of a picture, 1 = transparent: [B, H, W, 4] -> [B, H, W]."""
    return 1.0 - rgba[..., 3]
