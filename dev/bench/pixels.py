"""Work on pictures that is bound by memory: bleeding and compositing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from lib_layerdiffuse.pixels.bleed import bleed_rgb
from lib_layerdiffuse.pixels.composite import Layer, Layers

from .measure import Machine, cost, costs
from .table import Row

SIDE, LAYERS = 1024, 10
FLOAT = 4  # bytes


def rows(machine: Machine) -> Iterator[Row]:
    """Pictures are float32, whatever networks work in."""
    picture = torch.rand(1, SIDE, SIDE, 4, device=machine.device)
    yield Row(f"bleed, {SIDE}x{SIDE}", cost(partial(bleed_rgb, picture)))
    layers = stack(machine, SIDE, LAYERS)
    ours, plain = costs(layers.flatten, partial(composite_plainly, layers))
    # Each layer is read, and the canvas read and written.
    floor = LAYERS * SIDE**2 * 3 * 4 * FLOAT / machine.copies
    yield Row(f"composite of {LAYERS} layers, {SIDE}x{SIDE}", ours, plain, floor)


def stack(machine: Machine, side: int, count: int) -> Layers:
    """So many pictures over one another, none of them a background."""
    return Layers(side, side, tuple(Layer(torch.rand(1, side, side, 4, device=machine.device), opacity=0.9) for _ in range(count)))


def composite_plainly(layers: Layers) -> Tensor:
    """Whole pictures over one another, as the formula reads (Compositing and Blending Level 1, section 5.1)."""
    canvas = torch.zeros_like(layers.layers[0].image)
    for layer in layers.layers:
        alpha, alpha_below = layer.image[..., 3:] * layer.opacity, canvas[..., 3:]
        alpha_out = alpha + alpha_below * (1.0 - alpha)
        colour = alpha * layer.image[..., :3] + (1.0 - alpha) * alpha_below * canvas[..., :3]
        canvas = torch.cat((colour / alpha_out, alpha_out), dim=-1)
    return canvas
