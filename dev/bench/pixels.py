"""Work on pictures that is bound by memory: bleeding and compositing."""

# OpenCV is installed for the benchmark alone.
# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from lib_layerdiffuse.pixels.bleed import SHRINK, bleed_rgb
from lib_layerdiffuse.pixels.composite import Layer, Layers, over

from .measure import Machine, costs
from .table import Row

SIDE, LAYERS = 1024, 10
FLOAT = 4  # bytes
GOALS = {"cpu": "OpenCV's time", "cuda": "a tenth of OpenCV's time"}


def rows(machine: Machine) -> Iterator[Row]:
    """Pictures are float32, whatever networks work in."""
    device = machine.device
    picture = torch.rand(1, SIDE, SIDE, 4, device=device)
    pixels = picture[0].cpu().numpy()
    ours, opencv = costs(partial(bleed_rgb, picture), partial(bleed_with_opencv, pixels))
    yield Row(f"bleed, {SIDE}x{SIDE} (textbook: OpenCV on the CPU)", ours, opencv, goal=GOALS[device.type])
    layers = Layers(SIDE, SIDE, tuple(Layer(torch.rand(1, SIDE, SIDE, 4, device=device), opacity=0.9) for _ in range(LAYERS)))
    ours, plain = costs(layers.flatten, partial(composite_plainly, layers))
    # Each layer is read, and the canvas read and written.
    floor = LAYERS * SIDE**2 * 3 * 4 * FLOAT / machine.copies
    yield Row(f"composite of {LAYERS} layers, {SIDE}x{SIDE}", ours, plain, floor)


def bleed_with_opencv(rgba: Any) -> Any:
    """The same pyramid by OpenCV's resizing, in its own number of threads: [H, W, 4] -> [H, W, 3]."""
    cv2.setNumThreads(torch.get_num_threads())
    levels = [np.concatenate([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], axis=2)]
    while min(levels[-1].shape[:2]) > 1:
        height, width = (int(side / SHRINK) for side in levels[-1].shape[:2])
        levels.append(cv2.resize(levels[-1], (width, height), interpolation=cv2.INTER_AREA))
    total = levels[-1].sum(axis=(0, 1), keepdims=True)
    filled = total[..., :3] / np.maximum(total[..., 3:], 1e-8)
    for level in reversed(levels):
        filled = cv2.resize(filled, level.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        filled = level[..., :3] + filled * (1.0 - level[..., 3:])
    return filled


def composite_plainly(layers: Layers) -> Tensor:
    """Whole pictures over one another, as the formula reads."""
    canvas = torch.zeros_like(layers.layers[0].image)
    for layer in layers.layers:
        canvas = over(canvas, layer.image, layer.mode, layer.opacity)
    return canvas
