"""Scaling and turning a transparent picture: premultiplied, smoothed when it shrinks, with smooth outer edges."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .premultiplied import premultiply, resize_rgba, straighten

MARGIN = 1  # transparent pixels around the picture, so that its edges are smooth


def place(image: Tensor, scale: float = 1.0, degrees: float = 0.0) -> tuple[Tensor, int, int]:
    """Scale and turn a picture about its centre: [B, H, W, 3 or 4], straight -> (picture, x, y).

    x, y: the new position of its top left corner relative to the old one. Degrees turn clockwise. Unless the turn is a multiple of
    90 degrees the result has 4 channels, transparent in the corners.
    """
    height, width = image.shape[1:3]
    if scale != 1.0:
        image = resize_rgba(image, max(1, round(height * scale)), max(1, round(width * scale)))
    if degrees % 90.0:
        image = _turn(image, math.radians(degrees))
    elif quarters := round(degrees / 90.0) % 4:
        image = image.rot90(-quarters, dims=(1, 2))
    return image, _half(width - image.shape[2]), _half(height - image.shape[1])


def _half(difference: int) -> int:
    return math.floor(difference / 2)


def _turn(image: Tensor, angle: float) -> Tensor:
    """[B, H, W, 3 or 4] -> [B, h, w, 4], just large enough for the turned picture."""
    height, width = image.shape[1:3]
    cosine, sine = math.cos(angle), math.sin(angle)
    turned_width = _same_parity(abs(width * cosine) + abs(height * sine) + 2 * MARGIN, width)
    turned_height = _same_parity(abs(width * sine) + abs(height * cosine) + 2 * MARGIN, height)

    alpha = image[..., 3:4] if image.shape[-1] == 4 else torch.ones_like(image[..., :1])
    pixels = premultiply(torch.cat((image[..., :3], alpha), dim=-1).float()).movedim(-1, 1)  # BHWC -> BCHW
    x = torch.arange(turned_width, device=image.device) - (turned_width - 1) / 2
    y = (torch.arange(turned_height, device=image.device) - (turned_height - 1) / 2)[:, None]
    # Where each pixel of the result comes from, in [-1, 1] over the source.
    grid = torch.stack(((x * cosine + y * sine) * (2 / width), (y * cosine - x * sine) * (2 / height)), dim=-1)
    grid = grid.to(pixels).expand(len(image), -1, -1, -1)
    turned = F.grid_sample(pixels, grid, mode="bicubic", padding_mode="zeros", align_corners=False)
    return straighten(turned.movedim(1, -1))


def _same_parity(length: float, like: int) -> int:
    """The least whole number from `length` on that is odd or even as `like` is, so that the centre stays between the same pixels."""
    whole = math.ceil(length - 1e-6)
    return whole + (whole - like) % 2
