"""Opaque backdrops that make transparency visible."""

from __future__ import annotations

import torch
from torch import Tensor

CHECKER_VALUES = (0.45, 0.55)  # the authors' preview (docs/facts.md section 7)
CHECKERBOARD = "checkerboard"
COLOURS = {
    "white": (1.0, 1.0, 1.0),
    "black": (0.0, 0.0, 0.0),
    "grey": (0.5, 0.5, 0.5),
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
}
BACKDROPS = (CHECKERBOARD, *COLOURS)


def over_backdrop(rgba: Tensor, backdrop: str = CHECKERBOARD, cell: int = 64) -> Tensor:
    """Straight RGBA [B, H, W, 4] over a checkerboard with cells of `cell` pixels, or over a colour -> [B, H, W, 3]."""
    rgb, alpha = rgba[..., :3], rgba[..., 3:4]
    behind = _checkerboard(rgba, cell) if backdrop == CHECKERBOARD else rgba.new_tensor(COLOURS[backdrop])
    return rgb * alpha + behind * (1.0 - alpha)


def _checkerboard(like: Tensor, cell: int) -> Tensor:
    y = torch.arange(like.shape[1], device=like.device)[:, None] // cell
    x = torch.arange(like.shape[2], device=like.device)[None, :] // cell
    dark, light = CHECKER_VALUES
    return torch.where((x + y) % 2 == 0, light, dark).to(like)[..., None]
