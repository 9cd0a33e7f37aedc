"""How much of a picture is transparent."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

NOTHING = 0.02  # below this alpha, nothing can be seen
EVERYTHING = 0.98


@dataclass(frozen=True)
class Coverage:
    """Shares of the pixels, 0 to 1."""

    opaque: float
    partial: float
    transparent: float

    def __str__(self) -> str:
        return f"{self.opaque:.0%} opaque, {self.partial:.0%} translucent, {self.transparent:.0%} transparent"


def coverage(rgba: Tensor) -> Coverage:
    """Shares of opaque, translucent and transparent pixels in [B, H, W, 4]."""
    alpha = rgba[..., 3]
    opaque = (alpha >= EVERYTHING).float().mean().item()
    transparent = (alpha <= NOTHING).float().mean().item()
    return Coverage(opaque, 1.0 - opaque - transparent, transparent)
