"""From tensors to 8-bit pictures, without a second copy of a large picture in floating point."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..pixels.composite import PHOTOSHOP, Layer, Layers, inside

ROWS = 256  # of a picture that are worked on at a time


def to_bytes(pixels: Tensor) -> np.ndarray:
    """[H, W, C] in [0, 1] -> the same in 0 to 255, rounded, on the CPU."""
    result = torch.empty(pixels.shape, dtype=torch.uint8)
    for target, part in zip(result.split(ROWS), pixels.split(ROWS), strict=True):
        target.copy_((part.float() * 255.0 + 0.5).clamp(0.0, 255.0))
    return result.numpy()


def flat_bytes(layers: Layers, blending: str = PHOTOSHOP) -> np.ndarray:
    """The first picture of a batch of layers, flattened strip by strip: [H, W, 3 or 4] in 0 to 255, straight alpha."""
    first = layers.one(0)
    strips = (first.flatten(top, min(ROWS, layers.height - top), blending)[0] for top in range(0, layers.height, ROWS))
    strip = to_bytes(next(strips))
    flat = np.empty((layers.height, layers.width, strip.shape[2]), np.uint8)
    flat[: len(strip)] = strip
    for index, pixels in enumerate(strips, start=1):
        flat[index * ROWS : (index + 1) * ROWS] = to_bytes(pixels)
    return flat


def layer_bytes(layer: Layer, height: int, width: int) -> np.ndarray:
    """The first picture of a layer in its place on an empty canvas, its opacity in its alpha: [height, width, 4] in 0 to 255."""
    canvas = np.zeros((height, width, 4), np.uint8)
    (top, bottom), (left, right) = inside(layer.y, layer.image.shape[1], height), inside(layer.x, layer.image.shape[2], width)
    if top >= bottom or left >= right:
        return canvas
    pixels = to_bytes(layer.image[0, top:bottom, left:right])
    part = canvas[top + layer.y : bottom + layer.y, left + layer.x : right + layer.x]
    part[..., 3] = np.rint(pixels[..., 3] * np.float32(layer.opacity)) if pixels.shape[2] == 4 else round(255 * layer.opacity)
    np.copyto(part[..., :3], pixels[..., :3], where=part[..., 3:] > 0)
    return canvas


def reduced(picture: np.ndarray, side: int) -> Image.Image:
    """A picture that fits into a square, never enlarged."""
    image = Image.fromarray(picture)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image
