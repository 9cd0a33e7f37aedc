"""Backgrounds: opaque, smooth enough for a small autoencoder, each with a few words that name it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .colours import COLOURS, vary
from .drawn import Drawn
from .sprites import uniform

# Those with a colour come first.
SCENES = ("wall", "gradient", "stripes", "dots", "sky", "sunset", "night", "meadow")
COLOURED = 4
WALL, GRADIENT, STRIPES, DOTS, SKY, SUNSET, NIGHT, MEADOW = range(8)


@dataclass(frozen=True)
class Scenes(Drawn):
    """What B backgrounds are; every field is a tensor whose first dimension is B."""

    kind: Tensor  # index in SCENES
    colour: Tensor  # index in COLOURS; of meaning for the coloured kinds only
    rgb: Tensor  # [B, 3]
    second: Tensor  # [B, 3], the other colour of stripes and dots
    period: Tensor  # of stripes and dots, as a fraction of the picture
    turn: Tensor
    phase: Tensor  # [B, 8] in [0, 2 pi)
    horizon: Tensor  # height of the horizon or the sun, in [-1, 1]


def draw_scenes(count: int, generator: torch.Generator) -> Scenes:
    """Backgrounds of any kind."""
    kind = torch.randint(len(SCENES), (count,), generator=generator)
    colour = torch.randint(len(COLOURS), (count,), generator=generator)
    rgb = vary(colour, generator)
    lighter = torch.rand(count, 1, generator=generator) < 0.5
    return Scenes(
        kind=kind,
        colour=colour,
        rgb=rgb,
        second=torch.where(lighter, rgb + (1 - rgb) * 0.4, rgb * 0.65),
        period=uniform(0.3, 0.5, count, generator=generator),
        turn=uniform(0, math.pi, count, generator=generator),
        phase=uniform(0, 2 * math.pi, count, 8, generator=generator),
        horizon=uniform(-0.1, 0.45, count, generator=generator),
    )


def paint_scenes(scenes: Scenes, side: int) -> Tensor:
    """Backgrounds as pictures [B, 3, side, side] in [0, 1]."""
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    picture = torch.empty(len(scenes), 3, side, side)
    for kind, recipe in enumerate((_wall, _gradient, _stripes, _dots, _sky, _sunset, _night, _meadow)):
        rows = scenes.kind == kind
        if rows.any():
            picture[rows] = recipe(scenes.rows(rows), x, y)
    return picture.clamp(0, 1)


def _mix(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Colours [B, 3] or [3] and weights of b [B, H, W] -> [B, 3, H, W]."""
    a, b = (colour[..., :, None, None] for colour in (a, b))
    return a + (b - a) * weight.unsqueeze(1)


def _flat(s: Scenes, x: Tensor) -> Tensor:
    return s.rgb[:, :, None, None].expand(-1, -1, *x.shape)


def _wall(s: Scenes, x: Tensor, y: Tensor) -> Tensor:
    return _flat(s, x)


def _across(s: Scenes, x: Tensor, y: Tensor) -> Tensor:
    return s.turn.cos()[:, None, None] * x + s.turn.sin()[:, None, None] * y


def _gradient(s: Scenes, x: Tensor, y: Tensor) -> Tensor:
    return _mix(s.rgb, s.second, (_across(s, x, y) * 0.4 + 0.5).clamp(0, 1))


def _stripes(s: Scenes, x: Tensor, y: Tensor) -> Tensor:
    wave = (_across(s, x, y) * math.pi / s.period[:, None, None] + s.phase[:, 0, None, None]).sin()
    return _mix(s.rgb, s.second, (wave * 2 + 0.5).clamp(0, 1))


def _dots(s: Scenes, x: Tensor, y: Tensor) -> Tensor:
    """Round, on a square grid that is turned."""
    along, across = _across(s, x, y), s.turn.cos()[:, None, None] * y - s.turn.sin()[:, None, None] * x
    cells = [position * math.pi / s.period[:, None, None] + s.phase[:, i, None, None] for i, position in enumerate((along, across))]
    return _mix(s.rgb, s.second, ((cells[0].cos() + cells[1].cos() - 0.7) * 1.8 + 0.5).clamp(0, 1))


def _waves(s: Scenes, x: Tensor, y: Tensor) -> Tensor:
    """Soft random hills and valleys of about unit height."""
    total = torch.zeros(len(s), *x.shape)
    for i, (fx, fy) in enumerate(((2.0, 3.0), (3.5, -2.0), (1.2, 5.0), (4.5, 4.0))):
        total += (fx * x + s.phase[:, i, None, None]).sin() * (fy * y + s.phase[:, i + 4, None, None]).cos()
    return total / 2


def _sky(s: Scenes, x: Tensor, y: Tensor) -> Tensor:
    """Blue, lighter below, with soft clouds."""
    blue = _mix(torch.tensor([0.25, 0.50, 0.92]), torch.tensor([0.66, 0.82, 0.98]), (y * 0.5 + 0.5).expand(len(s), -1, -1))
    clouds = (_waves(s, x, y) * 0.8 - 0.1).clamp(0, 0.8).unsqueeze(1)
    return blue + (1 - blue) * clouds


def _sunset(s: Scenes, x: Tensor, y: Tensor) -> Tensor:
    """Purple above, orange below, with a low sun."""
    air = _mix(torch.tensor([0.38, 0.16, 0.42]), torch.tensor([0.99, 0.58, 0.20]), (y * 0.5 + 0.5).expand(len(s), -1, -1))
    where = s.phase[:, 0, None, None].cos() * 0.6
    distance = ((x - where).square() + (y - s.horizon[:, None, None]).square()).sqrt()
    sun = ((0.28 - distance) * 14).clamp(0, 1).unsqueeze(1)
    return air + (torch.tensor([1.0, 0.93, 0.62])[:, None, None] - air) * sun


def _night(s: Scenes, x: Tensor, y: Tensor) -> Tensor:
    """Dark blue with a pale haze and a few large stars."""
    dark = _mix(torch.tensor([0.03, 0.03, 0.12]), torch.tensor([0.10, 0.12, 0.34]), (y * 0.5 + 0.5).expand(len(s), -1, -1))
    for i in range(4):
        sx, sy = s.phase[:, i].cos(), s.phase[:, i + 4].sin()
        distance = (x - sx[:, None, None] * 0.9).square() + (y - sy[:, None, None] * 0.9).square()
        dark = dark + (1 - dark) * (-distance / 0.006).exp().unsqueeze(1) * 0.9
    return dark


def _meadow(s: Scenes, x: Tensor, y: Tensor) -> Tensor:
    """A pale sky over a wavy green ground."""
    hill = s.horizon[:, None, None] + 0.12 * (2.5 * x + s.phase[:, 0, None, None]).sin()
    ground = ((y - hill) * 16).clamp(0, 1)
    above = _mix(torch.tensor([0.55, 0.76, 0.96]), torch.tensor([0.84, 0.92, 0.98]), (y * 0.5 + 0.5).expand(len(s), -1, -1))
    below = _mix(torch.tensor([0.40, 0.70, 0.22]), torch.tensor([0.16, 0.45, 0.12]), (y * 0.6 + 0.4).clamp(0, 1).expand(len(s), -1, -1))
    return above + (below - above) * ground.unsqueeze(1)
