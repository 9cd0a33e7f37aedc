"""The judge knows what sprites show that were never blurred by a network; otherwise its verdict on generated ones would mean little."""

from __future__ import annotations

import torch

from training.data.captions import keep_out
from training.data.colours import COLOURS
from training.data.procedural import seen_sprites
from training.data.shapes import SHAPES
from training.data.sprites import MATERIALS, draw_sprites, paint
from training.judge import judge


def test_painted_sprites_are_recognised() -> None:
    sprites = seen_sprites(24, torch.Generator().manual_seed(11))
    verdicts = judge(paint(sprites, 128))
    for field, names in (("shape", SHAPES), ("colour", COLOURS), ("material", MATERIALS)):
        right = [getattr(verdict, field) == names[kind] for verdict, kind in zip(verdicts, getattr(sprites, field).tolist(), strict=True)]
        assert sum(right) >= 23, field
    assert min(verdict.overlap for verdict in verdicts) > 0.88


def test_an_empty_picture_is_no_sprite() -> None:
    assert judge(torch.zeros(1, 4, 128, 128))[0].overlap == 0.0


def test_half_a_shape_fits_worse() -> None:
    kinds = keep_out(torch.tensor([SHAPES.index("heart")]), torch.tensor([0]), torch.tensor([0]))
    heart = paint(draw_sprites(*kinds, generator=torch.Generator().manual_seed(0)), 128)
    half = heart.clone()
    half[..., int(heart[0, 3].sum(dim=0).nonzero().float().mean()) :] = 0
    (whole,), (cut,) = judge(heart), judge(half)
    assert whole.shape == "heart" and cut.overlap < whole.overlap - 0.05
