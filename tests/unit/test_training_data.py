"""Procedural pictures: exact alpha, captions, and pictures that only a latent offset can tell apart."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lib_layerdiffuse.pixels.straight import on_grey
from training.data import captions as words
from training.data.colours import COLOURS
from training.data.folder import PictureFolder
from training.data.procedural import crowded, layers, over, seen_sprites, transparent_pictures
from training.data.shapes import SHAPES, distance_to_outline, signed_distance
from training.data.sprites import GLASS, GLOW, MATERIALS, SOLID, draw_ambiguous_pairs, draw_sprites, paint
from training.data.tokens import END, START, procedural_tokens
from training.loop import Draws

SIDE = 128


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sprites(shape: str, material: int, count: int = 8):
    kinds = (torch.full((count,), SHAPES.index(shape)), torch.arange(count) % len(COLOURS), torch.full((count,), material))
    return draw_sprites(*kinds, generator=generator())


def test_distance_to_a_polygon() -> None:
    square = [torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)]
    points = torch.tensor([[0.0, 0.0], [0.5, 0.0], [2.0, 0.0], [4.0, 5.0]], dtype=torch.float64)
    assert distance_to_outline(square, points).tolist() == pytest.approx([-1.0, -0.5, 1.0, 5.0])


@pytest.mark.parametrize("shape", SHAPES)
def test_tables_give_distances(shape: str) -> None:
    """Where a distance is smooth, its slope is one; a hole counts as outside."""
    axis = torch.linspace(-1.6, 1.6, 161)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)[None]
    distance = signed_distance(torch.tensor([SHAPES.index(shape)]), points)[0]
    slope = torch.stack(torch.gradient(distance, spacing=0.02)).norm(dim=0)
    assert slope.median() == pytest.approx(1.0, abs=0.01)
    assert (distance[80, 80] > 0) == (shape in ("ring", "crescent"))
    assert distance.min() < 0 < distance[0].min()


def test_area_of_a_disc() -> None:
    """Coverage is exact to a fraction of a pixel of the outline's length."""
    discs = sprites("circle", SOLID)
    radius = discs.scale * SIDE / 2 * 1.45 / math.sqrt(math.pi)
    inside = (discs.centre.abs().amax(dim=1) + discs.scale < 0.95) & (radius < 60)
    assert inside.any()
    area = paint(discs, SIDE)[:, 3].sum(dim=(1, 2))
    assert (area - math.pi * radius**2)[inside].abs().max() < 0.05 * (2 * math.pi * radius).max()


def test_materials_differ_in_alpha() -> None:
    def soft(material: int) -> float:
        alpha = paint(sprites("heart", material), SIDE)[:, 3]
        return float(((alpha > 0.1) & (alpha < 0.85)).sum() / (alpha > 0.1).sum())

    assert soft(SOLID) < 0.1 < 0.3 < soft(GLOW)
    assert soft(GLASS) > 0.5


def test_ambiguous_pairs_look_the_same_on_grey() -> None:
    sheer, muted = (paint(half, SIDE) for half in draw_ambiguous_pairs(16, generator()))
    assert (over(sheer, 0.5) - over(muted, 0.5)).abs().max() < 1e-5
    assert (sheer[:, 3] - muted[:, 3]).abs().amax(dim=(1, 2)).min() > 0.15
    assert torch.allclose(over(sheer, 0.5).movedim(1, -1), on_grey(sheer.movedim(1, -1)))


def test_a_process_paints_its_rows_of_the_whole_batch() -> None:
    whole, part = (layers(6, 32, generator(3), rows) for rows in (slice(None), slice(2, 4)))
    assert torch.equal(part.foreground, whole.foreground[2:4]) and torch.equal(part.blended, whole.blended[2:4])
    assert part.blended_captions == whole.blended_captions[2:4]
    assert torch.equal(transparent_pictures(6, 32, generator(3), slice(2, 4)), transparent_pictures(6, 32, generator(3))[2:4])


def test_some_backgrounds_already_show_something() -> None:
    generator = torch.Generator().manual_seed(5)
    drawn = layers(32, 32, generator)
    busy = crowded(drawn, 0.5, generator)
    changed = (busy.background != drawn.background).flatten(1).any(dim=1)
    assert 8 < changed.sum() < 24
    assert torch.equal(busy.foreground, drawn.foreground)
    assert busy.blended_captions == drawn.blended_captions
    assert torch.equal(busy.blended, over(drawn.foreground, busy.background))


def test_captions() -> None:
    assert words.describe("heart", "red", "glass") == "a red glass heart"
    assert words.describe("circle", "orange", "solid") == "an orange circle"
    assert words.describe("circle", "orange", "solid", other=True) == "a solid orange circle"
    assert words.describe("star", "blue", "glow") == "a glowing blue star"
    drawn = layers(64, 8, generator())
    assert all(" on " in caption for caption in drawn.blended_captions)
    tokens = procedural_tokens(drawn.blended_captions)
    assert tokens.shape == (64, 77) and (tokens[:, 0] == START).all() and (tokens[:, -1] == END).all()
    with pytest.raises(ValueError, match="'dragon' is not a word"):
        procedural_tokens(["a red dragon"])


def test_held_out_combinations_are_never_drawn_but_their_parts_are() -> None:
    kinds = torch.cartesian_prod(torch.arange(len(SHAPES)), torch.arange(len(COLOURS)), torch.arange(3)).T
    held = words.is_held_out(*kinds)
    assert 0.1 < held.float().mean() < 0.3
    for kind in kinds:
        assert all(not held[kind == value].all() and held[kind == value].any() for value in kind.unique())
    drawn = seen_sprites(2000, generator())
    assert not words.is_held_out(drawn.shape, drawn.colour, drawn.material).any()
    assert MATERIALS[int(drawn.material.max())] == "glow"


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    pixels = np.zeros((40, 60, 4), dtype=np.uint8)
    pixels[:, 30:] = (255, 0, 0, 255)  # transparent black beside opaque red: black may not bleed in
    Image.fromarray(pixels).save(tmp_path / "half.png")
    (tmp_path / "half.txt").write_text("a red half\n")
    folder = PictureFolder(tmp_path, 20)
    rows, _ = folder(Draws(0, 1, 4, slice(1, 3), generator()))
    assert rows.shape == (2, 4, 20, 20) and folder.caption(0) == "a red half"
    edge = (rows[:, 3] > 0.05) & (rows[:, 3] < 0.95)
    assert (rows[:, 0][edge] > 0.9).all()
    again, _ = folder(Draws(0, 1, 4, slice(0, 4), generator()))
    assert torch.equal(again[1:3], rows)
    with pytest.raises(ValueError, match="no PNG"):
        PictureFolder(tmp_path / "nothing", 20)


def test_poses_may_be_narrow() -> None:
    kind = torch.zeros(64, dtype=torch.long)
    free, narrow = (draw_sprites(kind, kind, kind, torch.Generator().manual_seed(2), freedom=freedom) for freedom in (1.0, 0.2))
    torch.testing.assert_close(narrow.turn, free.turn * 0.2)
    assert narrow.scale.std() < 0.25 * free.scale.std()
    assert narrow.centre.abs().max() < 0.3 * free.centre.abs().max()
