"""Work on pictures that is bound by memory: bleeding and compositing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from lib_layerdiffuse.pixels.bleed import bleed_rgb
from lib_layerdiffuse.pixels.composite import Layer, Layers

from .measure import Machine, cost
from .table import Row

SIDE, LAYERS = 1024, 10
FLOAT = 4  # bytes


def rows(machine: Machine) -> Iterator[Row]:
    """Pictures are float32, whatever networks work in."""
    device = machine.device
    picture = torch.rand(1, SIDE, SIDE, 4, device=device)
    yield Row(f"bleed, {SIDE}x{SIDE}", cost(partial(bleed_rgb, picture)))
    layers = tuple(Layer(torch.rand(1, SIDE, SIDE, 4, device=device), opacity=0.9) for _ in range(LAYERS))
    # Each layer is read, and the canvas read and written.
    floor = LAYERS * SIDE**2 * 3 * 4 * FLOAT / machine.copies
    yield Row(f"composite of {LAYERS} layers, {SIDE}x{SIDE}", cost(Layers(SIDE, SIDE, layers).flatten), floor=floor)
