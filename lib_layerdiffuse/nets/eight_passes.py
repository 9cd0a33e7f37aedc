"""The median of several passes of the transparency decoder.

The decoder is not equivariant: turned or mirrored pictures give slightly different alpha. The published estimate takes the median over
the eight orientations of the square (docs/facts.md section 3); fewer passes are faster and less exact.

Letters of shapes: B pictures, C channels, H and W height and width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# (flip along W first, then quarter turns); half turns come first: they keep the shape of the picture.
ORIENTATIONS = ((False, 0), (False, 2), (True, 0), (True, 2), (False, 1), (False, 3), (True, 1), (True, 3))
PASSES = (1, 2, 4, 8)

Decoder = Callable[[Tensor, Tensor], Tensor]


def turn(x: Tensor, flip: bool, quarters: int) -> Tensor:
    """Bring [B, C, H, W] into an orientation."""
    return torch.rot90(x.flip(3) if flip else x, quarters, (2, 3))


def turn_back(x: Tensor, flip: bool, quarters: int) -> Tensor:
    """Undo `turn`."""
    x = torch.rot90(x, -quarters, (2, 3))
    return x.flip(3) if flip else x


def estimate_rgba(decoder: Decoder, pixel: Tensor, latent: Tensor, passes: int = 8, on_pass: Callable[[], None] | None = None) -> Tensor:
    """Median of several oriented passes of the transparency decoder.

    pixel [B, 3, H, W] in [0, 1], latent [B, C, H/8, W/8] -> [B, 4, H, W] float32 in [0, 1], straight colour, channels in the order of
    the file. `passes` is 8 (as published: the lower median per element), 4, 2 (the mean of the middle values) or 1. `on_pass` is
    called after each pass.
    """
    if passes not in PASSES:
        raise ValueError(f"passes must be one of {PASSES}, got {passes}")
    lowest = Lowest(passes // 2 + (passes < 8))
    for flip, quarters in ORIENTATIONS[:passes]:
        result = decoder(turn(pixel, flip, quarters), turn(latent, flip, quarters))
        lowest.add(turn_back(result.float().clamp_(0.0, 1.0), flip, quarters))
        if on_pass is not None:
            on_pass()
    if passes in (1, 8):
        return lowest.values[-1]
    return (lowest.values[-2] + lowest.values[-1]) / 2


class Lowest:
    """The `count` lowest of the tensors seen so far, per element and in rising order: enough for the median of a known number."""

    def __init__(self, count: int):
        self.count = count
        self.values: list[Tensor] = []

    def add(self, value: Tensor) -> None:
        for i, lower in enumerate(self.values):
            self.values[i], value = torch.minimum(lower, value), torch.maximum(lower, value)
        if len(self.values) < self.count:
            self.values.append(value)


def alpha_first(latent_channels: int) -> bool:
    """Channel order of a family's files: A, R, G, B where latents have 4 channels (SD1.5, SDXL), R, G, B, A where 16 (Flux)."""
    return latent_channels == 4
