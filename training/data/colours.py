"""Named colours."""

from __future__ import annotations

import torch
from torch import Tensor

PALETTE: dict[str, tuple[float, float, float]] = {
    "red": (0.88, 0.10, 0.12),
    "orange": (0.98, 0.52, 0.05),
    "yellow": (0.98, 0.88, 0.10),
    "green": (0.12, 0.65, 0.20),
    "cyan": (0.10, 0.80, 0.88),
    "blue": (0.12, 0.25, 0.88),
    "purple": (0.50, 0.15, 0.72),
    "pink": (1.00, 0.48, 0.75),
    "brown": (0.45, 0.26, 0.10),
    "white": (0.96, 0.96, 0.96),
    "grey": (0.55, 0.55, 0.55),
    "black": (0.06, 0.06, 0.06),
}
COLOURS = tuple(PALETTE)
JITTER = 0.03


def colour_table() -> Tensor:
    """[colours, 3] in [0, 1]."""
    return torch.tensor(list(PALETTE.values()))


def vary(colour: Tensor, generator: torch.Generator) -> Tensor:
    """Colours [B] (index in COLOURS) as RGB [B, 3], each a little off."""
    rgb = colour_table()[colour]
    return (rgb + torch.randn(rgb.shape, generator=generator) * JITTER).clamp(0, 1)
