"""Boxes: where what can be seen of a picture lies, and where it is to lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..errors import DiaphaneError
from .coverage import NOTHING
from .straight import mask_planes

CLEARLY = 0.1  # from this alpha on, a single pixel is seen
LARGEST = 16384  # pixels; of a side, and of the way from the canvas's corner


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels: its top left corner and its size."""

    x: float
    y: float
    width: float
    height: float

    def __str__(self) -> str:
        return f"x {self.x:g}, y {self.y:g}, {self.width:g}x{self.height:g} px"


def visible(rgba: Tensor) -> Tensor:
    """What can be seen: [B, H, W, 4] -> [B, H, W], bool. Estimated alpha has faint specks, which count only from 3x3 pixels on."""
    alpha = rgba[..., 3]
    without_specks = _grown(~_grown(alpha <= NOTHING))
    return without_specks | (alpha > CLEARLY)


def _grown(mask: Tensor) -> Tensor:
    """A mask [B, H, W], bool, and all pixels beside it."""
    wide = mask.clone()
    wide[..., 1:] |= mask[..., :-1]
    wide[..., :-1] |= mask[..., 1:]
    grown = wide.clone()
    grown[:, 1:] |= wide[:, :-1]
    grown[:, :-1] |= wide[:, 1:]
    return grown


def visible_box(image: Tensor) -> Box:
    """The box of all that can be seen in [B, H, W, 3 or 4], in whichever picture; the whole picture if nothing can."""
    there = visible(image).any(dim=0) if image.shape[-1] == 4 else None
    if there is None or not there.any():
        return Box(0, 0, image.shape[2], image.shape[1])
    return box_around(there)


def box_around(there: Tensor) -> Box:
    """The box of what is true in [H, W], somewhere at least."""
    rows, columns = there.any(dim=1).nonzero(), there.any(dim=0).nonzero()
    left, top = int(columns.min()), int(rows.min())
    return Box(left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top)


def cut_to(image: Tensor, box: Box, margin: int) -> tuple[Tensor, int, int]:
    """The part of a picture [B, H, W, C] in a box of whole pixels, and a margin as far as there is one: (picture, x, y of its corner)."""
    top, left = max(0, int(box.y) - margin), max(0, int(box.x) - margin)
    return image[:, top : int(box.y + box.height) + margin, left : int(box.x + box.width) + margin], left, top


def boxes_given(box: Any, into: Tensor | None, height: int, width: int) -> list[Box] | None:
    """The boxes on a canvas of that size that a BOUNDING_BOX or a mask names; None without either. Raises DiaphaneError for both."""
    if box is not None and into is not None:
        raise DiaphaneError("Place Layer got box and into, and fits the object into one of them. Disconnect the other.")
    if into is not None:
        return boxes_around(into, height, width)
    return None if box is None else read_boxes(box)


def read_boxes(value: Any) -> list[Box]:
    """The boxes of a BOUNDING_BOX: {x, y, width, height} in pixels, or lists of them, as nodes give one for each picture.

    Raises DiaphaneError for anything else, and for boxes without a size.
    """
    if isinstance(value, (list, tuple)):
        return [box for item in value for box in read_boxes(item)]
    given = [value.get(key) for key in ("x", "y", "width", "height")] if isinstance(value, Mapping) else []
    numbers = [number for number in given if isinstance(number, (int, float))]
    if len(numbers) < 4:
        raise DiaphaneError(
            f"A box (BOUNDING_BOX) has x, y, width and height in pixels, got {value!r:.100}. Connect bboxes of Create Bounding Boxes."
        )
    box = Box(*numbers)
    if not (abs(box.x) <= LARGEST and abs(box.y) <= LARGEST and 1 <= box.width <= LARGEST and 1 <= box.height <= LARGEST):
        raise DiaphaneError(f"A box is 1 to {LARGEST} px large and lies as near to the canvas, got {box}. Draw it anew.")
    return [box]


def boxes_around(mask: Tensor, height: int, width: int) -> list[Box]:
    """The box of what is painted in each mask of [H, W] or [B, H, W], 1 = here, stretched to a canvas of that size.

    Raises DiaphaneError for a mask in which nothing is painted.
    """
    boxes = []
    for plane in mask_planes(mask)[:, 0] > NOTHING:
        if not plane.any():
            raise DiaphaneError(f"Nothing is painted in a mask of {list(mask.shape)}. Paint where the object is to be: 1 = here.")
        box, down, across = box_around(plane), height / plane.shape[0], width / plane.shape[1]
        boxes.append(Box(box.x * across, box.y * down, box.width * across, box.height * down))
    return boxes


def each_in_its_box(image: Tensor, boxes: list[Box], number: int = 0) -> list[tuple[Tensor, Box]]:
    """Pictures [B, H, W, C] and the boxes that they go to.

    number: 1 is the first box, all pictures go there; 0: the only box, or the first one for a single picture, or one for each picture.
    Raises DiaphaneError if there is no such box.
    """
    if len(boxes) < max(number, 1):
        raise DiaphaneError(f"Got {len(boxes)} boxes, none of which is box {max(number, 1)}. Draw one, or change box_number.")
    if number or len(boxes) == 1 or len(image) == 1:
        return [(image, boxes[max(number, 1) - 1])]
    if len(image) != len(boxes):
        raise DiaphaneError(
            f"Got {len(image)} pictures and {len(boxes)} boxes. Draw as many boxes as there are pictures, or set box_number."
        )
    return list(zip(image.split(1), boxes, strict=True))
