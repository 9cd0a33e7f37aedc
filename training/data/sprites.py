"""Sprites with exact alpha: a shape in a colour and a material, at any pose.

Colour is straight and goes on beyond the edge, so that alpha alone says where the sprite ends.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .colours import COLOURS, vary
from .drawn import Drawn
from .shapes import SHAPES, signed_distance

MATERIALS = ("solid", "glass", "glow", "sheer")
SOLID, GLASS, GLOW, SHEER = range(4)

SCALE = (0.46, 0.72)  # radius of the outline, as a share of half the picture
TURN = 0.6  # radians, either way
GLASS_BODY = (0.22, 0.45)
SHEER_BODY = (0.25, 0.80)
GREY = 0.5


@dataclass(frozen=True)
class Sprites(Drawn):
    """What B sprites are; every field is a tensor whose first dimension is B."""

    shape: Tensor  # index in SHAPES
    colour: Tensor  # index in COLOURS
    material: Tensor  # index in MATERIALS
    rgb: Tensor  # [B, 3]
    body: Tensor  # alpha inside of glass and sheer ones
    scale: Tensor
    turn: Tensor
    centre: Tensor  # [B, 2], in [-1, 1] over the picture
    light: Tensor  # [B, 2], unit vector


def uniform(low: float, high: float, *size: int, generator: torch.Generator) -> Tensor:
    return torch.rand(size, generator=generator) * (high - low) + low


def draw_sprites(shape: Tensor, colour: Tensor, material: Tensor, generator: torch.Generator, freedom: float = 1.0) -> Sprites:
    """Pose, exact colour and body of sprites whose kind is given ([B] indices).

    freedom: how far the pose may be from upright, in the middle and of medium size; 1 is any pose.
    """
    count = len(shape)
    medium = sum(SCALE) / 2
    scale = medium + freedom * (uniform(*SCALE, count, generator=generator) - medium)
    reach = (1.0 - scale).clamp(min=0.0)[:, None] * 0.85 * freedom
    angle = uniform(2.4, 5.0, count, generator=generator)  # from somewhere above
    glass = uniform(*GLASS_BODY, count, generator=generator)
    sheer = uniform(*SHEER_BODY, count, generator=generator)
    return Sprites(
        shape=shape,
        colour=colour,
        material=material,
        rgb=vary(colour, generator),
        body=torch.where(material == SHEER, sheer, glass),
        scale=scale,
        turn=freedom * uniform(-TURN, TURN, count, generator=generator),
        centre=uniform(-1, 1, count, 2, generator=generator) * reach,
        light=torch.stack([angle.cos(), angle.sin()], dim=1),
    )


def draw_any(count: int, generator: torch.Generator, materials: int = 3) -> Sprites:
    """Sprites of any kind; `materials`: how many of MATERIALS are in use (3: those that have a name in captions)."""
    kinds = [torch.randint(high, (count,), generator=generator) for high in (len(SHAPES), len(COLOURS), materials)]
    return draw_sprites(*kinds, generator=generator)


def draw_ambiguous_pairs(count: int, generator: torch.Generator) -> tuple[Sprites, Sprites]:
    """Sheer bright sprites and solid muted ones, [count] each, that look the same on mid-grey."""
    sheer = draw_sprites(
        torch.randint(len(SHAPES), (count,), generator=generator),
        torch.randint(len(COLOURS), (count,), generator=generator),
        torch.full((count,), SHEER),
        generator,
    )
    muted = GREY + sheer.body[:, None] * (sheer.rgb - GREY)
    same = {field.name: getattr(sheer, field.name) for field in fields(sheer)}
    return sheer, Sprites(**same | {"rgb": muted, "body": torch.ones(count)})


def paint(sprites: Sprites, side: int) -> Tensor:
    """Sprites as pictures [B, 4, side, side] in [0, 1], straight alpha."""
    points = _own_points(sprites, side)
    distance = signed_distance(sprites.shape, points)
    coverage = (0.5 - distance * sprites.scale[:, None, None] * side / 2).clamp(0, 1)
    shade = (points * sprites.light[:, None, None]).sum(-1)
    alpha, rgb = torch.empty_like(coverage), torch.empty(len(sprites), 3, side, side)
    for material, recipe in ((SOLID, _solid), (GLASS, _glass), (GLOW, _glow), (SHEER, _sheer)):
        rows = sprites.material == material
        if rows.any():
            alpha[rows], rgb[rows] = recipe(sprites.rows(rows), points[rows], distance[rows], coverage[rows], shade[rows])
    return torch.cat([rgb.clamp(0, 1), alpha.unsqueeze(1)], dim=1)


def outline(sprites: Sprites, side: int) -> Tensor:
    """Which pixels are inside of the sprites' outlines, whatever their alpha is there: [B, 1, side, side] bool."""
    return (signed_distance(sprites.shape, _own_points(sprites, side)) < 0).unsqueeze(1)


def _own_points(sprites: Sprites, side: int) -> Tensor:
    """The pixels' places as a sprite of unit size that stands upright in the middle has them: [B, side, side, 2]."""
    axis = (torch.arange(side) + 0.5) / side * 2 - 1
    pixels = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)  # HW2
    cos, sin = sprites.turn.cos(), sprites.turn.sin()
    back = torch.stack([torch.stack([cos, -sin], dim=1), torch.stack([sin, cos], dim=1)], dim=1)  # columns turn back
    return (pixels - sprites.centre[:, None, None]) @ back[:, None] / sprites.scale[:, None, None, None]


Painted = tuple[Tensor, Tensor]  # alpha [B, H, W], rgb [B, 3, H, W]


def _solid(s: Sprites, points: Tensor, distance: Tensor, coverage: Tensor, shade: Tensor) -> Painted:
    """Opaque, a little brighter towards the light."""
    return coverage, s.rgb[:, :, None, None] + 0.10 * shade.clamp(-1, 1).unsqueeze(1)


def _sheer(s: Sprites, points: Tensor, distance: Tensor, coverage: Tensor, shade: Tensor) -> Painted:
    """Evenly see-through, or muted and solid: without light, so that both can look the same."""
    return coverage * s.body[:, None, None], s.rgb[:, :, None, None].expand(-1, -1, *coverage.shape[1:])


def _glass(s: Sprites, points: Tensor, distance: Tensor, coverage: Tensor, shade: Tensor) -> Painted:
    """See-through with a denser rim and a white highlight."""
    body = s.body[:, None, None]
    rim = (distance.clamp(max=0) / 0.12).exp()
    depth = (-distance).clamp(min=0)
    spot = (-(points - 0.38 * s.light[:, None, None]).square().sum(-1) / 0.025).exp() * (depth / 0.1).clamp(0, 1)
    alpha = coverage * (body + (0.75 - body) * rim + (0.95 - body) * spot * (1 - rim)).clamp(0, 1)
    colour = s.rgb[:, :, None, None]
    return alpha, colour + (1 - colour) * (0.9 * spot).unsqueeze(1)


def _glow(s: Sprites, points: Tensor, distance: Tensor, coverage: Tensor, shade: Tensor) -> Painted:
    """Brighter in the middle, fading softly outside of its outline."""
    outside = 0.9 * (-(distance.clamp(min=0) / 0.20)).exp() * ((1.3 - distance) / 0.8).clamp(0, 1)
    inside = (-distance / 0.35).clamp(0, 1)
    colour = s.rgb[:, :, None, None]
    brightest = colour.amax(dim=1, keepdim=True)
    return torch.where(distance > 0, outside, 0.9 + 0.1 * inside), colour + (brightest - colour) * 0.45 * inside.unsqueeze(1)
