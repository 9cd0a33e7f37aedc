"""Straight alpha: pictures, masks and opaque backgrounds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DiaphaneError


def with_alpha(image: Tensor, transparency: Tensor | None = None) -> Tensor:
    """RGBA of a picture and what is known about its transparency.

    image [B, H, W, 1, 3 or 4]; without an alpha channel it counts as opaque. transparency: ComfyUI mask [B or 1, h, w], 1 = transparent,
    resized to the picture; both transparencies add up. -> [B, H, W, 4]. Raises DiaphaneError for other channels, unequal batches or none.
    """
    check_picture(image)
    rgb = image[..., :3].expand(-1, -1, -1, 3)
    alpha = image[..., 3:4] if image.shape[-1] == 4 else torch.ones_like(image[..., :1])
    if transparency is not None:
        alpha = alpha * (1.0 - _mask_for(image, transparency))
    return torch.cat((rgb.expand(len(alpha), -1, -1, -1), alpha), dim=-1)


def check_picture(image: Tensor) -> None:
    """Raises DiaphaneError unless it is [B, H, W, 1, 3 or 4] with something in it."""
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4):
        raise DiaphaneError(f"Pictures are [batch, height, width, 3 or 4 channels], got {list(image.shape)}. Connect an IMAGE output.")
    if image.numel() == 0:
        raise DiaphaneError(f"Got an empty picture, {list(image.shape)}. Check the node before: it cropped or filtered everything away.")


def _mask_for(image: Tensor, transparency: Tensor) -> Tensor:
    """A mask at the picture's size: [B or 1, H, W, 1]."""
    mask = transparency.reshape(-1, 1, *transparency.shape[-2:]).to(image)
    if 1 not in (len(image), len(mask)) and len(image) != len(mask):
        raise DiaphaneError(f"Got {len(image)} pictures and {len(mask)} masks. Connect as many masks as pictures, or one.")
    if mask.shape[2:] != image.shape[1:3]:
        mask = F.interpolate(mask, size=image.shape[1:3], mode="bilinear", align_corners=False)
    return mask.movedim(1, -1)


def on_grey(rgba: Tensor) -> Tensor:
    """Composite on mid-grey, as the method sees transparent pictures: [B, H, W, 4] -> [B, H, W, 3] (FACTS section 2)."""
    return 0.5 + (rgba[..., :3] - 0.5) * rgba[..., 3:4]


def transparency_mask(rgba: Tensor) -> Tensor:
    """ComfyUI mask of a picture, 1 = transparent: [B, H, W, 4] -> [B, H, W]."""
    return 1.0 - rgba[..., 3]
