"""Straight alpha: pictures, masks and opaque backgrounds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DiaphaneError

ROUNDING = 1e-6  # of an interpolation between equal values
FAINT, PLAIN = 0.25, 0.75  # alpha up to which colour is not read off grey, and from which on it is read off grey alone


def with_alpha(image: Tensor, transparency: Tensor | None = None) -> Tensor:
    """RGBA of a picture and what is known about its transparency.

    image [B, H, W, 1, 3 or 4]; without an alpha channel it counts as opaque. transparency: ComfyUI mask [B or 1, h, w], 1 = transparent,
    resized to the picture; both transparencies are combined. -> [B, H, W, 4], float32, on the picture's device. Raises DiaphaneError for
    other channels, unequal or empty batches, and values that are not finite numbers.
    """
    check_picture(image)
    image = image.float()
    rgb = image[..., :3].expand(-1, -1, -1, 3)
    alpha = alpha_of(image)
    if transparency is not None:
        alpha = alpha * (1.0 - _mask_for(image, transparency))
    return torch.cat((rgb.expand(len(alpha), -1, -1, -1), alpha), dim=-1)


def alpha_of(image: Tensor) -> Tensor:
    """[B, H, W, C] -> [B, H, W, 1]: the fourth channel, or 1 everywhere if there is none."""
    return image[..., 3:4] if image.shape[-1] == 4 else torch.ones_like(image[..., :1])


def check_picture(image: Tensor) -> None:
    """Raises DiaphaneError unless it is [B, H, W, 1, 3 or 4], floating point, not empty, and all finite."""
    if not isinstance(image, Tensor):
        raise DiaphaneError(f"A picture (IMAGE) is needed, got a {type(image).__name__}. Connect an IMAGE output.")
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4):
        raise DiaphaneError(f"Pictures are [batch, height, width, 3 or 4 channels], got {list(image.shape)}. Connect an IMAGE output.")
    if image.numel() == 0:
        raise DiaphaneError(f"Got an empty picture, {list(image.shape)}. Check the node before: it cropped or filtered everything away.")
    _check_numbers(image, "picture")


def _mask_for(image: Tensor, transparency: Tensor) -> Tensor:
    """A mask at the picture's size: [B or 1, H, W, 1]."""
    mask = mask_planes(transparency).to(image)
    if 1 not in (len(image), len(mask)) and len(image) != len(mask):
        raise DiaphaneError(f"Got {len(image)} pictures and {len(mask)} masks. Connect as many masks as pictures, or one.")
    return resize_mask(mask, *image.shape[1:3]).movedim(1, -1)


def resize_mask(mask: Tensor, height: int, width: int) -> Tensor:
    """[B, 1, h, w] -> [B, 1, height, width]. Values of 1 stay exactly 1: rounding errors would be visible to trimming."""
    if mask.shape[2:] == (height, width):
        return mask
    mask = F.interpolate(mask, size=(height, width), mode="bilinear", align_corners=False)
    return mask.masked_fill(mask > 1.0 - ROUNDING, 1.0)


def mask_planes(mask: Tensor) -> Tensor:
    """A mask [H, W] or [B, H, W] as ComfyUI's nodes give it, some as [B, 1, H, W], -> [B, 1, H, W]. Raises DiaphaneError for others."""
    if not 2 <= mask.ndim <= 4 or (mask.ndim == 4 and mask.shape[1] != 1):
        raise DiaphaneError(f"Masks are [batch, height, width], got {list(mask.shape)}. Connect a MASK output.")
    if mask.numel() == 0:
        raise DiaphaneError(f"Got an empty mask, {list(mask.shape)}. Check the node before: it cropped or filtered everything away.")
    if mask.dtype != torch.bool:
        _check_numbers(mask, "mask")
    return mask.reshape(-1, 1, *mask.shape[-2:]).float()


def _check_numbers(values: Tensor, what: str) -> None:
    if not values.is_floating_point():
        raise DiaphaneError(
            f"A {what} holds fractions from 0 to 1, got whole numbers ({values.dtype}). Divide them by 255 in the node that made them."
        )
    # The sum needs no memory. A finite picture may overflow it, so only then is every value checked.
    if not values.sum(dtype=torch.float32).isfinite() and not values.isfinite().all():
        raise DiaphaneError(
            f"Got a {what} that is not all numbers (NaN or infinite). The node before it failed, most often a VAE in half precision: "
            "start ComfyUI with --fp32-vae, or use another VAE."
        )


def on_grey(rgba: Tensor) -> Tensor:
    """Composite on mid-grey, as the method sees transparent pictures: [B, H, W, 4] -> [B, H, W, 3] (docs/facts.md section 2)."""
    return 0.5 + (rgba[..., :3] - 0.5) * rgba[..., 3:4]


def off_grey(seen: Tensor, rgba: Tensor) -> Tensor:
    """The inverse of `on_grey`: a picture whose colour is read off how it looks on mid-grey.

    seen [B, H, W, 3], rgba [B, H, W, 4], both in [0, 1] -> [B, H, W, 4], alpha that of `rgba`. Errors of `seen` grow as 1 / alpha, so
    from PLAIN down to FAINT the colour of `rgba` takes over. Where alpha is 1 the colour is that of `seen`.
    """
    alpha = rgba[..., 3:4]
    read = (0.5 + (seen - 0.5) / alpha.clamp(min=FAINT)).clamp(0.0, 1.0)
    trust = ((alpha - FAINT) / (PLAIN - FAINT)).clamp(0.0, 1.0)
    return torch.cat((torch.lerp(rgba[..., :3], read, trust), alpha), dim=-1)


def transparency_mask(rgba: Tensor) -> Tensor:
    """ComfyUI mask of a picture, 1 = transparent: [B, H, W, 4] -> [B, H, W]."""
    return 1.0 - rgba[..., 3]
