"""The layers of ComfyUI's own nodes (LAYERS, since ComfyUI 0.31) to and from ours.

They are a plain dict: {"version": 1, "canvas": (width, height), "layers": [items]}, the lowest first. An item is a dict, too: "image"
[B, H, W, 3 or 4], each picture of which is a layer; "mask" (1 = transparent); "x", "y", "w", "h": the box that it is scaled to;
"rotation" in radians, clockwise about the box's centre, after "flip_h" and "flip_v"; "opacity", "blend_mode", "visible", "name";
"z_index", by which layers are sorted. Keys may be missing, and what is of another type than it should be counts as missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import DiaphaneError
from ..pixels.blend import BLENDS, NORMAL
from ..pixels.boxes import LARGEST
from ..pixels.composite import Layer, Layers
from ..pixels.place import place
from ..pixels.premultiplied import resize_rgba
from ..pixels.straight import check_picture, mask_planes, with_alpha

Fields = Mapping[str, Any]

VERSION = 1
RASTER = "raster"
MOST_LAYERS = 50  # that ComfyUI's nodes composite
MODES = {mode: mode.replace("colour", "color").replace(" ", "-") for mode in BLENDS} | {"add": "linear-dodge"}
OUR_MODES = {theirs: ours for ours, theirs in MODES.items()}


def to_comfyui(layers: Layers) -> dict[str, Any]:
    """The first picture of a batch of layers. All have one z_index, so that Add Layer puts a further layer on top."""
    items = []
    for layer in layers.one(0).layers:
        item = {"image": layer.image.float(), "type": RASTER, "x": layer.x, "y": layer.y, "z_index": 0}
        settings = {"name": layer.name, "opacity": layer.opacity, "blend_mode": MODES[layer.mode], "visible": layer.visible}
        usual = {"name": "", "opacity": 1.0, "blend_mode": NORMAL, "visible": True}
        items.append(item | {key: value for key, value in settings.items() if value != usual[key]})
    return {"version": VERSION, "canvas": (layers.width, layers.height), "layers": items}


def from_comfyui(document: Fields) -> Layers:
    """What the document shows, scaled, mirrored and turned. Its canvas, if it has none, reaches to the last pixel of all layers.

    Raises DiaphaneError for what cannot be read, and if there is no picture in it.
    """
    items = sorted(_items(document), key=lambda item: _whole(item, "z_index", 0))
    layers = [layer for item in items for layer in _layers(item)]
    if not layers:
        raise DiaphaneError("There is no picture in these layers. Connect a picture to Add Layer, or to the node that made them.")
    width, height = _canvas(document) or _extent(items)
    _check_size("The canvas", width, height)
    return Layers(height, width, tuple(layers))


def without_picture(document: Fields) -> int:
    """The number of entries that are left out, because there is no picture in them."""
    items = _items(document)
    return len(document.get("layers") or items) - len(items)


def _items(document: Fields) -> list[Fields]:
    """The entries that hold a picture. Raises DiaphaneError for those that say they are something unknown."""
    version = document.get("version")
    if version is not None and not (isinstance(version, Real) and version == VERSION):
        raise DiaphaneError(f"Layers of version {version!r:.80} are not known, only those of version {VERSION}. Update Diaphane.")
    entries = document.get("layers")
    if entries is None:
        return []
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise DiaphaneError(f"The layers in LAYERS have to be a list, got a {type(entries).__name__}. Make them by Add Layer.")
    items = [entry for entry in entries if isinstance(entry, Mapping)]
    for item in items:
        kind, mode = item.get("type", RASTER), item.get("blend_mode")
        if not (isinstance(kind, str) and kind == RASTER):
            raise DiaphaneError(f"A layer of the type {kind!r:.80} cannot be read, only {RASTER}. Make a picture of it and use Add Layer.")
        if isinstance(mode, str) and mode not in OUR_MODES:
            raise DiaphaneError(f"{mode!r:.80} is no blend mode. Change it in the node that made the layers: {', '.join(OUR_MODES)}.")
    return [item for item in items if isinstance(item.get("image"), Tensor)]


def _layers(item: Fields) -> Iterator[Layer]:
    """A layer for each picture of an item's batch."""
    images, mask = item["image"], item.get("mask")
    check_picture(images)
    masks = mask_planes(mask) if isinstance(mask, Tensor) else images.new_empty(0)
    x, y, width, height = _box(item)
    _check_size("A layer", width, height)
    name, mode = item.get("name"), item.get("blend_mode")
    mirrored = [axis for key, axis in (("flip_v", 1), ("flip_h", 2)) if _flag(item, key, False)]
    for index, image in enumerate(images.split(1)):
        own = masks if len(masks) == 1 else masks[index : index + 1]
        if len(own) or image.shape[-1] != 3:
            image = with_alpha(image, own if len(own) else None)
        image = resize_rgba(image.flip(mirrored), height, width)
        image, left, top = place(image, degrees=math.degrees(math.fmod(_number(item, "rotation", 0.0), math.tau)))
        yield Layer(
            image,
            name=name if isinstance(name, str) else "",
            mode=OUR_MODES[mode] if isinstance(mode, str) else NORMAL,
            opacity=min(max(_number(item, "opacity", 1.0), 0.0), 1.0),
            x=x + left,
            y=y + top,
            visible=_flag(item, "visible", True),
        )


def _box(item: Fields) -> tuple[int, int, int, int]:
    """x, y, width and height before the turn."""
    height, width = item["image"].shape[1:3]
    wanted = _whole(item, "w", 0), _whole(item, "h", 0)
    return _whole(item, "x", 0), _whole(item, "y", 0), wanted[0] if wanted[0] > 0 else width, wanted[1] if wanted[1] > 0 else height


def _canvas(document: Fields) -> tuple[int, int] | None:
    canvas = document.get("canvas")
    if not isinstance(canvas, (tuple, list)) or len(canvas) != 2:
        return None
    sides = dict(zip("wh", canvas, strict=True))
    width, height = _whole(sides, "w", 0), _whole(sides, "h", 0)
    return (width, height) if width > 0 and height > 0 else None


def _extent(items: Sequence[Fields]) -> tuple[int, int]:
    """Width and height from the origin to the farthest corner of a turned box."""
    right = bottom = 1
    for item in items:
        x, y, width, height = _box(item)
        angle = _number(item, "rotation", 0.0)
        cosine, sine = abs(math.cos(angle)), abs(math.sin(angle))
        right = max(right, math.ceil(x + (width + width * cosine + height * sine) / 2))
        bottom = max(bottom, math.ceil(y + (height + width * sine + height * cosine) / 2))
    return right, bottom


def _check_size(what: str, width: int, height: int) -> None:
    if max(width, height) > LARGEST:
        raise DiaphaneError(f"{what} of {width}x{height} is too large: a side has at most {LARGEST} pixels. Make it smaller.")


def _number(entry: Fields, key: str, otherwise: float) -> float:
    value = entry.get(key)
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value) else otherwise


def _whole(entry: Fields, key: str, otherwise: int) -> int:
    return int(_number(entry, key, otherwise))


def _flag(entry: Fields, key: str, otherwise: bool) -> bool:
    value = entry.get(key)
    return bool(value) if isinstance(value, (Real, np.bool_)) else otherwise
