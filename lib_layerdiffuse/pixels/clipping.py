"""Layers confined by masks and by one another, and several layers as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .blend import NORMAL
from .composite import Layer, composite, inside
from .straight import alpha_of, with_alpha


def masked(layer: Layer, mask: Tensor, x: int, y: int, outside: float = 0.0) -> Layer:
    """A layer whose alpha is multiplied by a mask [B or 1, h, w] at (x, y) of the canvas, 1 = visible, and by `outside` elsewhere."""
    image = layer.image.float()
    alpha = alpha_of(image)[..., 0]
    factor = torch.full_like(alpha, outside)
    (top, bottom), (left, right) = (
        inside(offset, length, size)
        for offset, length, size in zip((y - layer.y, x - layer.x), mask.shape[1:], alpha.shape[1:], strict=True)
    )
    if top < bottom and left < right:
        here = mask[:, top:bottom, left:right].to(factor)
        factor[:, top + y - layer.y : bottom + y - layer.y, left + x - layer.x : right + x - layer.x] = here
    return replace(layer, image=torch.cat((image[..., :3], (alpha * factor)[..., None]), dim=-1))


def clipped_to(layer: Layer, base: Layer) -> Layer:
    """A layer that shows only where another does, as much as that one does."""
    return masked(layer, alpha_of(base.image)[..., 0] * base.opacity, base.x, base.y)


def clipped_together(base: Layer, clipped: Sequence[Layer]) -> Layer:
    """A layer and those that are clipped to it as one: its alpha, and the colour that they have over it. Exact at soft edges, too."""
    height, width = base.image.shape[1:3]
    opaque = replace(base, image=base.image[..., :3], mode=NORMAL, opacity=1.0, x=0, y=0, visible=True)
    above = [replace(layer, x=layer.x - base.x, y=layer.y - base.y) for layer in clipped]
    colour = composite([opaque, *above], height, width)
    return replace(base, image=torch.cat((colour, base.image[..., 3:].float()), dim=-1))


def as_one(layers: Sequence[Layer], height: int, width: int) -> Layer | None:
    """Layers composited on nothing, cut at a canvas of that size and to the rectangle that the visible ones cover; None if it is empty."""
    boxes = [box for layer in layers if layer.visible and (box := _on_canvas(layer, height, width))]
    if not boxes:
        return None
    tops, lefts, bottoms, rights = zip(*boxes, strict=True)
    top, left = min(tops), min(lefts)
    moved = [replace(layer, x=layer.x - left, y=layer.y - top) for layer in layers]
    return Layer(composite(moved, max(bottoms) - top, max(rights) - left), x=left, y=top)


def _on_canvas(layer: Layer, height: int, width: int) -> tuple[int, int, int, int] | None:
    """The rectangle of the canvas that a layer covers: top, left, bottom, right."""
    first, last = inside(layer.y, layer.image.shape[1], height)
    left, right = inside(layer.x, layer.image.shape[2], width)
    return (first + layer.y, left + layer.x, last + layer.y, right + layer.x) if first < last and left < right else None


def on_canvas(layer: Layer, height: int, width: int) -> Tensor:
    """A layer's picture in its place on an empty canvas: [B, height, width, 4], cut there; its opacity and mode do nothing."""
    image = with_alpha(layer.image)
    result = image.new_zeros(len(image), height, width, 4)
    (top, bottom), (left, right) = inside(layer.y, image.shape[1], height), inside(layer.x, image.shape[2], width)
    if top < bottom and left < right:
        result[:, top + layer.y : bottom + layer.y, left + layer.x : right + layer.x] = image[:, top:bottom, left:right]
    return result
