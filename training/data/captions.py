"""Words for procedural pictures, and the combinations that training never sees."""

from __future__ import annotations

import torch
from torch import Tensor

from .colours import COLOURS
from .scenes import COLOURED, SCENES, Scenes
from .shapes import SHAPES
from .sprites import MATERIALS, Sprites

# Two ways to say each; the second one is rarer.
_MATERIAL_WORDS = {
    "solid": ("{colour} {shape}", "solid {colour} {shape}"),
    "glass": ("{colour} glass {shape}", "{colour} glass {shape}"),
    "glow": ("glowing {colour} {shape}", "{colour} glowing {shape}"),
    "sheer": ("sheer {colour} {shape}", "sheer {colour} {shape}"),
}
_SCENE_WORDS = {"sky": "a blue sky", "sunset": "a sunset", "night": "a night sky", "meadow": "a green meadow"}

HELD_OUT_OF = 5  # one in 5 combinations of shape, colour and material is kept for tests


def article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def describe(shape: str, colour: str, material: str, *, other: bool = False) -> str:
    """As in "a red glass heart". `other`: in the rarer of two ways."""
    return article(_MATERIAL_WORDS[material][other].format(colour=colour, shape=shape))


def sprite_captions(sprites: Sprites, other: Tensor) -> list[str]:
    """One caption for each sprite; other [B] bool: in the rarer way."""
    rows = zip(sprites.shape.tolist(), sprites.colour.tolist(), sprites.material.tolist(), other.tolist(), strict=True)
    return [describe(SHAPES[s], COLOURS[c], MATERIALS[m], other=o) for s, c, m, o in rows]


def scene_captions(scenes: Scenes) -> list[str]:
    """One caption for each background."""
    captions = []
    for kind, colour in zip(scenes.kind.tolist(), scenes.colour.tolist(), strict=True):
        words = f"{COLOURS[colour]} {SCENES[kind]}"
        is_plural = words.endswith("s")
        captions.append(_SCENE_WORDS[SCENES[kind]] if kind >= COLOURED else words if is_plural else article(words))
    return captions


def blended_captions(sprites: list[str], scenes: list[str]) -> list[str]:
    return [f"{sprite} on {scene}" for sprite, scene in zip(sprites, scenes, strict=True)]


def is_held_out(shape: Tensor, colour: Tensor, material: Tensor) -> Tensor:
    """Which combinations [B] (indices) no training picture shows; every shape, colour and material occurs in others."""
    number = (shape * len(COLOURS) + colour) * len(MATERIALS) + material
    return (number * 2654435761 % 2**32 >> 16) % HELD_OUT_OF == 0


def keep_out(shape: Tensor, colour: Tensor, material: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Change the colour of held-out combinations until none is left."""
    colour = colour.clone()
    while (held := is_held_out(shape, colour, material)).any():
        colour = torch.where(held, (colour + 1) % len(COLOURS), colour)
    return shape, colour, material
