"""What a picture shows, judged without a network: the shape by its best-fitting outline, colour and material by statistics.

The measure of the mini family: does the result mean what the prompt said?
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .data.colours import COLOURS, colour_table
from .data.shapes import SHAPES, signed_distance
from .data.sprites import MATERIALS

SIDE = 64  # pictures are judged at this size
TURNS = 25  # over the range that sprites are turned by, and a little more
TURN_RANGE = 0.75
INSIDE = {"solid": 0.5, "glass": 0.12, "glow": 0.85}  # alpha from which on a pixel counts as inside of the outline


@dataclass(frozen=True)
class Verdict:
    """About one picture."""

    shape: str
    overlap: float  # intersection over union with the best-fitting outline
    colour: str
    material: str


def judge(rgba: Tensor) -> list[Verdict]:
    """Pictures [B, 4, H, W] in [0, 1], straight alpha."""
    return [_judge(picture) for picture in rgba.float()]


def _judge(picture: Tensor) -> Verdict:
    alpha = picture[3]
    material = _material(alpha)
    small = F.interpolate(alpha[None, None], size=(SIDE, SIDE), mode="area")[0, 0]
    shape, overlap = fit_outline(small > INSIDE[material])
    return Verdict(shape, overlap, _colour(picture), material)


def fit_outline(inside: Tensor) -> tuple[str, float]:
    """The outline that covers a mask [S, S] best, at any pose, and the overlap (intersection over union)."""
    area = float(inside.sum())
    if area < 8:
        return SHAPES[0], 0.0
    axis = (torch.arange(SIDE) + 0.5) / SIDE * 2 - 1
    pixels = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)
    centre = pixels[inside].mean(dim=0)
    turns = torch.linspace(-TURN_RANGE, TURN_RANGE, TURNS)
    best = (SHAPES[0], 0.0)
    for index, (own_area, own_centre) in enumerate(_outline_moments()):
        scale = math.sqrt(area * (2 / SIDE) ** 2 / own_area)
        for stretch in (0.94, 1.0, 1.06):
            overlap = _overlaps(index, inside, pixels, centre, own_centre, scale * stretch, turns).max()
            if overlap > best[1]:
                best = (SHAPES[index], float(overlap))
    return best


def _overlaps(index: int, inside: Tensor, pixels: Tensor, centre: Tensor, own_centre: Tensor, scale: float, turns: Tensor) -> Tensor:
    """[turns]: overlap of a mask with an outline whose centre of area lies on the mask's."""
    cos, sin = turns.cos(), turns.sin()
    forward = torch.stack([torch.stack([cos, sin], dim=1), torch.stack([-sin, cos], dim=1)], dim=1)  # rows @ this turns them
    origin = centre - scale * (own_centre @ forward)
    points = (pixels - origin[:, None, None]) @ forward.mT[:, None] / scale
    covered = signed_distance(torch.full((len(turns),), index), points) < 0
    return (covered & inside).sum(dim=(1, 2)) / (covered | inside).sum(dim=(1, 2))


@lru_cache(maxsize=1)
def _outline_moments() -> list[tuple[float, Tensor]]:
    """Area and centre of area of every outline, in its own units."""
    axis = torch.linspace(-1.5, 1.5, 301)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)
    insides = (signed_distance(torch.tensor([index]), points[None])[0] < 0 for index in range(len(SHAPES)))
    return [(float(inside.sum()) * 0.01**2, points[inside].mean(dim=0)) for inside in insides]


def _material(alpha: Tensor) -> str:
    """Solid: alpha is 0 or 1 but for the edge. Glow: full inside, soft outside. Glass: see-through inside."""
    visible = alpha > 0.08
    if not visible.any():
        return MATERIALS[0]
    values = alpha[visible]
    full = float((values > 0.82).float().mean())
    if full > 0.75:
        return "solid"
    return "glow" if full > 0.2 else "glass"


def _colour(picture: Tensor) -> str:
    """The nearest name to the mean colour where the picture is most opaque, without highlights."""
    alpha = picture[3]
    rows = alpha >= alpha.quantile(0.5).clamp(min=0.1)
    if not rows.any():
        return COLOURS[0]
    mean = picture[:3, rows].median(dim=1).values
    return COLOURS[int((colour_table() - mean).square().sum(dim=1).argmin())]
