"""Named outlines as tabulated distance fields: exact enough for antialiased edges at any pose, and quick to sample in batches."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

TABLE_SIDE = 256
TABLE_REACH = 2.5  # the tables cover [-reach, reach] in both directions; outlines stay within a radius of about 1
AREA_SIDE = 1.45  # outlines are scaled to the area of a square of this side, unless that would make them too wide
MAX_RADIUS = 1.15


def _arc(radius: float, start: float, end: float, count: int = 64, centre: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    angle = torch.linspace(start, end, count + 1, dtype=torch.float64)[:-1]
    return torch.stack([centre[0] + radius * angle.cos(), centre[1] + radius * angle.sin()], dim=1)


def _regular(*radii: float, count: int) -> Tensor:
    """Corners at equal angles, the first one up, their distances taken in turn from `radii`."""
    angle = torch.arange(count, dtype=torch.float64) * (2 * math.pi / count) - math.pi / 2
    radius = torch.tensor(radii, dtype=torch.float64).repeat(count // len(radii))
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)


def _flower() -> Tensor:
    angle = torch.linspace(0, 2 * math.pi, 161, dtype=torch.float64)[:-1]
    radius = 1 + 0.28 * (5 * angle).cos()
    return torch.stack([radius * angle.sin(), -radius * angle.cos()], dim=1)


def _heart() -> Tensor:
    angle = torch.linspace(0, 2 * math.pi, 97, dtype=torch.float64)[:-1]
    x = angle.sin() ** 3
    y = -(13 * angle.cos() - 5 * (2 * angle).cos() - 2 * (3 * angle).cos() - (4 * angle).cos()) / 16
    return torch.stack([x, y - 0.1], dim=1)


def _crescent() -> Tensor:
    """A circle without a smaller one that reaches in from the right."""
    outer, inner, shift = 1.0, 0.85, 0.55
    x = (shift**2 + outer**2 - inner**2) / (2 * shift)
    y = math.sqrt(outer**2 - x**2)
    a, b = math.atan2(y, x), math.atan2(y, x - shift)
    horns = torch.cat([_arc(outer, a, 2 * math.pi - a, 72), _arc(inner, 2 * math.pi - b, b, 72, (shift, 0.0))])
    return horns + torch.tensor([0.25, 0.0], dtype=torch.float64)


def _drop() -> Tensor:
    """A circle and the two tangents to it from a point above."""
    radius, tip, centre = 0.7, -1.3, 0.3
    angle = math.asin(radius / (centre - tip))
    return torch.cat([torch.tensor([[0.0, tip]], dtype=torch.float64), _arc(radius, -angle, math.pi + angle, 72, (0.0, centre))])


def _cross() -> Tensor:
    a, b = 0.36, 1.0
    corners = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]
    return torch.tensor(corners, dtype=torch.float64)


OUTLINES: dict[str, list[Tensor]] = {
    "circle": [_arc(1.0, 0, 2 * math.pi, 96)],
    "square": [_regular(1.0, count=4) @ torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64) / math.sqrt(2)],
    "triangle": [_regular(1.0, count=3)],
    "star": [_regular(1.0, 0.45, count=10)],
    "heart": [_heart()],
    "ring": [_arc(1.0, 0, 2 * math.pi, 96), _arc(0.55, 0, 2 * math.pi, 96)],
    "crescent": [_crescent()],
    "flower": [_flower()],
    "cross": [_cross()],
    "drop": [_drop()],
}
SHAPES = tuple(OUTLINES)


def distance_to_outline(loops: list[Tensor], points: Tensor) -> Tensor:
    """Signed distance, negative inside: closed polygons [N, 2] (a second one inside the first is a hole), points [..., 2] -> [...]."""
    start = torch.cat(loops)
    end = torch.cat([loop.roll(-1, dims=0) for loop in loops])
    edge, to_point = end - start, points.unsqueeze(-2) - start
    along = ((to_point * edge).sum(-1) / edge.square().sum(-1)).clamp(0, 1)
    distance = (to_point - along.unsqueeze(-1) * edge).norm(dim=-1).amin(-1)

    spans = (start[:, 1] <= points[..., None, 1]) != (end[:, 1] <= points[..., None, 1])
    height = torch.where(edge[:, 1] == 0, torch.ones_like(edge[:, 1]), edge[:, 1])
    crossing = start[:, 0] + (points[..., None, 1] - start[:, 1]) / height * edge[:, 0]
    inside = (spans & (points[..., None, 0] < crossing)).sum(-1) % 2 == 1
    return torch.where(inside, -distance, distance)


@lru_cache(maxsize=1)
def distance_tables() -> Tensor:
    """[shapes, 1, side, side]: signed distance of every outline on a regular grid over [-TABLE_REACH, TABLE_REACH]."""
    axis = (torch.arange(TABLE_SIDE, dtype=torch.float64) + 0.5) / TABLE_SIDE * 2 * TABLE_REACH - TABLE_REACH
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)
    tables = []
    for loops in OUTLINES.values():
        corners = torch.cat(loops)
        area = sum(_area(loop) * (1 if i == 0 else -1) for i, loop in enumerate(loops))
        scale = min(AREA_SIDE / math.sqrt(area), MAX_RADIUS / float(corners.norm(dim=1).max()))
        tables.append(distance_to_outline([loop * scale for loop in loops], points).float())
    return torch.stack(tables).unsqueeze(1)


def _area(loop: Tensor) -> float:
    x, y = loop.T
    return float((x * y.roll(-1) - y * x.roll(-1)).sum().abs() / 2)


def signed_distance(shape: Tensor, points: Tensor) -> Tensor:
    """Distance to each picture's outline in its own units: shape [B] (index in SHAPES), points [B, H, W, 2] -> [B, H, W]."""
    tables = distance_tables()
    grid = points / TABLE_REACH
    result = points.new_empty(points.shape[:3])
    for index in shape.unique().tolist():
        rows = shape == index
        table = tables[index : index + 1].to(points).expand(int(rows.sum()), -1, -1, -1)
        result[rows] = F.grid_sample(table, grid[rows], padding_mode="border", align_corners=False)[:, 0]
    return result
