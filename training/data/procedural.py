"""Batches of procedural pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .captions import article, blended_captions, keep_out, scene_captions, sprite_captions
from .colours import COLOURS
from .scenes import draw_scenes, paint_scenes
from .shapes import SHAPES
from .sprites import Sprites, draw_ambiguous_pairs, draw_any, draw_sprites, outline, paint

NAMED = 3  # materials that captions have a word for
ALL = slice(None)
Rows = slice | Tensor  # of a whole batch: a range, or a mask [B]
AMBIGUOUS_FRACTION = 0.4  # of the pictures that transparency is learned from


@dataclass(frozen=True)
class LayerBatch:
    """B pictures of one sprite each on one background. Pictures in [0, 1]."""

    foreground: Tensor  # [B, 4, H, W], straight alpha
    background: Tensor  # [B, 3, H, W]
    foreground_captions: list[str]
    background_captions: list[str]
    blended_captions: list[str]
    outline: Tensor  # [B, 1, H, W] bool: inside of the foreground's outline, see-through or not

    @property
    def blended(self) -> Tensor:
        return over(self.foreground, self.background)


def over(rgba: Tensor, background: Tensor | float) -> Tensor:
    """Straight-alpha pictures [B, 4, H, W] on opaque ones [B, 3, H, W] or a grey."""
    alpha = rgba[:, 3:]
    return rgba[:, :3] * alpha + background * (1 - alpha)


def seen_sprites(count: int, generator: torch.Generator, freedom: float = 1.0) -> Sprites:
    """Sprites of kinds that training may see; freedom of their poses as in `draw_sprites`."""
    kinds = [torch.randint(high, (count,), generator=generator) for high in (len(SHAPES), len(COLOURS), NAMED)]
    return draw_sprites(*keep_out(*kinds), generator=generator, freedom=freedom)


def layers(count: int, side: int, generator: torch.Generator, rows: Rows = ALL, freedom: float = 1.0) -> LayerBatch:
    """`rows` of a batch of `count` pictures, sprite on background, with captions; without the held-out combinations."""
    sprites, scenes = seen_sprites(count, generator, freedom), draw_scenes(count, generator)
    other = torch.rand(count, generator=generator) < 0.3
    sprites, scenes, other = sprites.rows(rows), scenes.rows(rows), other[rows]
    captions = sprite_captions(sprites, other), scene_captions(scenes)
    return LayerBatch(paint(sprites, side), paint_scenes(scenes, side), *captions, blended_captions(*captions), outline(sprites, side))


def crowded(drawn: LayerBatch, fraction: float, generator: torch.Generator) -> LayerBatch:
    """The same with another sprite on a fraction of the backgrounds, as in scenes that are made layer by layer; captions do not change."""
    side = drawn.background.shape[-1]
    busy = torch.rand(len(drawn.background), generator=generator) < fraction
    others = paint(seen_sprites(len(busy), generator), side)
    return replace(drawn, background=torch.where(busy.view(-1, 1, 1, 1), over(others, drawn.background), drawn.background))


def named_by_shape(drawn: LayerBatch, fraction: float, generator: torch.Generator) -> LayerBatch:
    """The same with a fraction of the sprites named by their shape alone, as in "a star"; the shape is the last word of a caption."""
    short = (torch.rand(len(drawn.foreground_captions), generator=generator) < fraction).tolist()
    names = [article(name.split()[-1]) if few else name for name, few in zip(drawn.foreground_captions, short, strict=True)]
    return replace(drawn, foreground_captions=names, blended_captions=blended_captions(names, drawn.background_captions))


def transparent_pictures(count: int, side: int, generator: torch.Generator, rows: Rows = ALL) -> Tensor:
    """`rows` of `count` pictures [., 4, side, side] to learn transparency from: many are ambiguous.

    For part of them other batches are likely to have one that looks the same on mid-grey and has another alpha.
    """
    ambiguous = torch.rand(count, generator=generator) < AMBIGUOUS_FRACTION
    plain = draw_any(count, generator, materials=NAMED)
    sheer, muted = draw_ambiguous_pairs(count, generator)
    first = torch.rand(count, generator=generator) < 0.5
    either = _choose(first, sheer, muted)
    return paint(_choose(ambiguous, either, plain).rows(rows), side)


def _choose(condition: Tensor, a: Sprites, b: Sprites) -> Sprites:
    def pick(x: Tensor, y: Tensor) -> Tensor:
        return torch.where(condition.view(-1, *(1,) * (x.ndim - 1)), x, y)

    return Sprites(*(pick(getattr(a, name), getattr(b, name)) for name in Sprites.__dataclass_fields__))


def crop(pictures: Tensor, side: int, where: Tensor) -> Tensor:
    """A square of each picture [B, C, H, W]; where [B, 2] in [0, 1) chooses it."""
    rooms = torch.tensor(pictures.shape[2:]) - side + 1
    corners = (where * rooms).long().tolist()
    return torch.stack([picture[:, y : y + side, x : x + side] for picture, (y, x) in zip(pictures, corners, strict=True)])
