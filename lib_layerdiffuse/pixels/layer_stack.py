"""Pictures and layer stacks from several sockets, collected into one stack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import DiaphaneError
from .boxes import Box, visible, visible_box
from .clipping import masked
from .composite import Layer, Layers, common_batch, inside
from .coverage import NOTHING
from .straight import check_picture, mask_planes, resize_mask, with_alpha

BACKGROUND_NAME = "Background"


def in_order(grown: Mapping[str, Tensor | Layers] | None) -> list[Tensor | Layers]:
    """The values of an Autogrow input (layer0, layer1, …), by their numbers; unconnected ones are left out."""
    found = grown or {}
    return [found[key] for key in sorted(found, key=lambda key: (len(key), key)) if found[key] is not None]


def stacked(lowest: Tensor | Layers | None, others: Iterable[Tensor | Layers], area: Tensor | None = None) -> Layers:
    """One stack of pictures and stacks; the first of them gives the size of the canvas.

    area: mask [B or 1, h, w] of the canvas; `others` appear only where it is 1. Raises DiaphaneError if there is nothing, or if
    batches do not go together.
    """
    above = [as_layers(item) for item in others]
    below = [] if lowest is None else [as_layers(lowest)]
    if not below + above:
        raise DiaphaneError("There are no layers to put together. Connect a picture, Place Layer, or the layers of Composite Layers.")
    canvas = (below + above)[0]
    new = [layer for stack in above for layer in stack.layers]
    if area is not None:
        new = [confined(layer, area, canvas.height, canvas.width) for layer in new]
    result = replace(canvas, layers=tuple([layer for stack in below for layer in stack.layers] + new))
    common_batch([layer.image for layer in result.layers])
    return result


def as_layers(item: Tensor | Layers) -> Layers:
    """A picture [B, H, W, C] as a stack of one layer in its place; a stack as it is."""
    if isinstance(item, Layers):
        return item
    check_picture(item)
    image = item if item.shape[-1] == 3 else with_alpha(item)
    return Layers(image.shape[1], image.shape[2], (Layer(image),))


def confined(layer: Layer, area: Tensor, height: int, width: int) -> Layer:
    """A layer multiplied by an area, a mask [B or 1, h, w] that is resized to the canvas."""
    area = resize_mask(mask_planes(area), height, width)
    count = common_batch([layer.image, area])
    repeated = replace(layer, image=layer.image.expand(count, -1, -1, -1))
    return masked(repeated, area[:, 0].clamp(0.0, 1.0), 0, 0)


def off_canvas(layers: Layers, above: int = 0) -> list[str]:
    """The layers from number `above` on (0 is the lowest) that are wholly outside the canvas: their names, or numbers."""
    return [
        layer.name or _number(index)
        for index, layer in enumerate(layers.layers)
        if index >= above and layer.visible and _is_outside(layer, layers.height, layers.width)
    ]


def _is_outside(layer: Layer, height: int, width: int) -> bool:
    (top, bottom), (left, right) = inside(layer.y, layer.image.shape[1], height), inside(layer.x, layer.image.shape[2], width)
    if top >= bottom or left >= right:
        return True
    return not _shows(layer.image[:, top:bottom, left:right]) and _shows(layer.image)


def _shows(image: Tensor) -> bool:
    return image.shape[-1] == 3 or bool((image[..., 3] > NOTHING).any())


def whereabouts(layers: Layers, above: int = 0) -> list[tuple[str, Box, float]]:
    """Of the visible layers from number `above` on: name, or number; where on the canvas their object is seen; how much is outside."""
    found = []
    for index, layer in enumerate(layers.layers):
        if index >= above and layer.visible:
            box = visible_box(layer.image)
            box = replace(box, x=box.x + layer.x, y=box.y + layer.y)
            found.append((layer.name or _number(index), box, _share_outside(layer, box, layers)))
    return found


def _share_outside(layer: Layer, box: Box, canvas: Layers) -> float:
    """How much of the object of a layer, whose box is given, lies beside the canvas: 0 to 1, in hundredths."""
    (top, bottom), (left, right) = inside(int(box.y), int(box.height), canvas.height), inside(int(box.x), int(box.width), canvas.width)
    if top >= bottom or left >= right:
        return 1.0
    if (bottom - top, right - left) == (box.height, box.width):
        return 0.0
    seen = visible(layer.image).float() if layer.image.shape[-1] == 4 else torch.ones_like(layer.image[..., 0])
    part = seen[:, max(0, -layer.y) : canvas.height - layer.y, max(0, -layer.x) : canvas.width - layer.x]
    return round(1.0 - float(part.sum() / seen.sum().clamp(min=1.0)), 2)


def thinned(layers: Layers, step: int) -> Layers:
    """Every `step`th row and column of a canvas and its layers: what the finished picture has there, for the time of a small one."""

    def thin(layer: Layer) -> Layer:
        image = layer.image[:, -layer.y % step :: step, -layer.x % step :: step]
        return replace(layer, image=image, x=-(-layer.x // step), y=-(-layer.y // step))

    return Layers(-(-layers.height // step), -(-layers.width // step), tuple(map(thin, layers.layers)))


def _number(index: int) -> str:
    return f"Layer {index + 1}"


def named(layers: Layers, names: Sequence[str]) -> Layers:
    """Every layer with a name: that of its line, else its own, else its number. Unprintable characters are removed."""
    lines = [*names, *[""] * len(layers.layers)]
    renamed = []
    for index, (layer, line) in enumerate(zip(layers.layers, lines, strict=False)):
        usual = BACKGROUND_NAME if index == 0 and layer.image.shape[-1] == 3 else _number(index)
        name = "".join(filter(str.isprintable, line.strip() or layer.name.strip()))
        renamed.append(replace(layer, name=name or usual))
    return replace(layers, layers=tuple(renamed))
