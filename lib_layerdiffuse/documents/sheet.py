"""Sprites on one sheet, and the atlas that says where: TexturePacker's JSON (hash), which Phaser, PixiJS and importers for Godot read."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DiaphaneError
from ..pixels.bleed import bleed_rgb
from ..pixels.coverage import NOTHING
from ..pixels.repair import trim

GRID = "grid"
PACKED = "packed"
LAYOUTS = (GRID, PACKED)
LONGEST_SIDE = 16384  # of a texture, on today's graphics cards
LONGEST_NAME = 60
ELONGATIONS = (1.0, 1.05, 1.1, 1.2, 1.3, 1.5, 2.0)  # widths that are tried, as multiples of the square's

Pair = tuple[int, int]


@dataclass(frozen=True)
class Sprite:
    """The part of a picture that goes on the sheet: image [h, w, 4], straight alpha; x, y: where it lay; size: of the whole picture."""

    image: Tensor
    x: int
    y: int
    size: Pair  # width, height


@dataclass(frozen=True)
class Sheet:
    """Where each sprite lies: (x, y) of its top left corner."""

    places: list[Pair]
    width: int
    height: int


def as_sprite(picture: Tensor, trimmed: bool) -> Sprite:
    """A picture [1, H, W, 4], straight alpha; trimmed: only what can be seen of it."""
    cut, x, y = trim(picture, 0, NOTHING) if trimmed else (picture, 0, 0)
    return Sprite(cut[0], x, y, (picture.shape[2], picture.shape[1]))


def sprite_names(lines: Sequence[str], count: int, prefix: str) -> list[str]:
    """`count` names that differ: of each line the first 60 printable characters, else prefix_00, prefix_01, …"""
    names: list[str] = []
    for index in range(count):
        line = " ".join(lines[index].split()) if index < len(lines) else ""
        name = "".join(filter(str.isprintable, line))[:LONGEST_NAME].strip() or f"{prefix}_{index:02}"
        possible = itertools.chain([name], (f"{name}_{number:02}" for number in itertools.count(index)))
        names.append(next(one for one in possible if one not in names))
    return names


def arrange(sizes: Sequence[Pair], layout: str, columns: int = 0, padding: int = 0, power_of_two: bool = False) -> Sheet:
    """Places for sprites of sizes (width, height) that do not overlap, with `padding` pixels between them and at the border.

    grid: rows of cells that hold the largest, each sprite in the middle of its own; columns: 0 makes the sheet about square.
    packed: the tallest first, each as high up as it goes. Raises DiaphaneError for a sheet of more than 16384 pixels a side.
    """
    cells = [(width + padding, height + padding) for width, height in sizes]
    tried = [_grid(cells, columns)] if layout == GRID else [_packed(cells, width) for width in _widths(cells, padding, power_of_two)]
    sheets = []
    for corners in tried:
        places = [(x + padding, y + padding) for x, y in corners]
        sides = (max(at[axis] + size[axis] for at, size in zip(places, sizes, strict=True)) + padding for axis in (0, 1))
        sheets.append(Sheet(places, *(1 << (side - 1).bit_length() if power_of_two else side for side in sides)))
    best = min(sheets, key=lambda sheet: (sheet.width * sheet.height, max(sheet.width, sheet.height)))
    if max(best.width, best.height) > LONGEST_SIDE:
        raise DiaphaneError(
            f"The sheet would have {best.width}x{best.height} pixels; {LONGEST_SIDE} a side is what graphics cards hold. "
            "Save fewer pictures on one sheet, or smaller ones."
        )
    return best


def _grid(cells: Sequence[Pair], columns: int) -> list[Pair]:
    width, height = (max(cell[axis] for cell in cells) for axis in (0, 1))
    columns = columns or math.ceil(math.sqrt(len(cells) * height / width))
    middles = [((width - w) // 2, (height - h) // 2) for w, h in cells]
    return [(index % columns * width + x, index // columns * height + y) for index, (x, y) in enumerate(middles)]


def _widths(cells: Sequence[Pair], padding: int, power_of_two: bool) -> set[int]:
    """Widths to try for what lies between the left border and the right edge."""
    widest = max(width for width, _ in cells)
    if power_of_two:
        sides = [1 << power for power in range(LONGEST_SIDE.bit_length())]
        return {side - padding for side in sides if side - padding >= widest} or {widest}
    square = math.sqrt(sum(width * height for width, height in cells))
    return {max(widest, round(square * elongation)) for elongation in ELONGATIONS}


def _packed(cells: Sequence[Pair], width: int) -> list[Pair]:
    """The skyline method, bottom-left rule, upside down: y counts from the top."""
    reached = np.zeros(width, np.int64)  # down to where each column is taken
    places = [(0, 0)] * len(cells)
    for index in sorted(range(len(cells)), key=lambda i: (-cells[i][1], -cells[i][0])):
        w, h = cells[index]
        steps = (0, *(np.flatnonzero(np.diff(reached)) + 1).tolist())
        y, x = min((int(reached[x : x + w].max()), x) for x in steps if x + w <= width)
        reached[x : x + w] = y + h
        places[index] = (x, y)
    return places


def draw(sprites: Sequence[Sprite], sheet: Sheet, padding: int, bleed: bool) -> Tensor:
    """The sheet [H, W, 4], straight alpha. bleed: colour goes on under transparent pixels, as far as half of the padding."""
    result = torch.zeros(sheet.height, sheet.width, 4)
    reach = padding // 2 if bleed else 0
    for sprite, (x, y) in zip(sprites, sheet.places, strict=True):
        image = F.pad(sprite.image, (0, 0, reach, reach, reach, reach))
        if bleed:
            image = torch.cat((bleed_rgb(image[None])[0], image[..., 3:]), dim=-1)
        height, width = image.shape[:2]
        result[y - reach : y - reach + height, x - reach : x - reach + width] = image
    return result


def atlas(sprites: Mapping[str, Sprite], sheet: Sheet, file_name: str) -> dict[str, Any]:
    """The atlas of a sheet that is saved under `file_name`; sprites by their names, in the order of the sheet's places."""
    frames = {}
    for (name, sprite), (x, y) in zip(sprites.items(), sheet.places, strict=True):
        height, width = sprite.image.shape[:2]
        frames[name] = {
            "frame": {"x": x, "y": y, "w": width, "h": height},
            "rotated": False,
            "trimmed": (width, height) != sprite.size,
            "spriteSourceSize": {"x": sprite.x, "y": sprite.y, "w": width, "h": height},
            "sourceSize": {"w": sprite.size[0], "h": sprite.size[1]},
        }
    size = {"w": sheet.width, "h": sheet.height}
    meta = {"app": "Diaphane", "version": "1.0", "image": file_name, "format": "RGBA8888", "size": size, "scale": "1"}
    return {"frames": frames, "meta": meta}
