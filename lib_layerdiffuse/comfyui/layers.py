"""The layers that one batch holds, and their names in the LATENT dictionary, from the empty latent through samplers to the decoder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from comfy.utils import repeat_to_batch_size
from einops import rearrange
from torch import Tensor

from ..errors import DiaphaneError

LATENT_SCALE = 8  # pixels per latent cell, along either side

LAYERS_KEY = "layers"
FOREGROUND = "foreground"
BACKGROUND = "background"
BLENDED = "blended"
NAMES = (FOREGROUND, BACKGROUND, BLENDED)

# What the released SD1.5 files generate together, in the order of the batch: joint, given foreground, given background, transparent.
ARRANGEMENTS = ((FOREGROUND, BACKGROUND, BLENDED), (BACKGROUND, BLENDED), (FOREGROUND, BLENDED), (FOREGROUND,))
SEPARATOR = ", "
CHOICES = [SEPARATOR.join(names) for names in ARRANGEMENTS]


def arrangement(choice: str) -> tuple[str, ...]:
    """The layers that a choice in a node names, in the order of the batch."""
    return tuple(choice.split(SEPARATOR))


def layers_in(samples: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The layers that a latent names, in the order of a set; None if it names none (or another pack means something else by the key)."""
    layers = samples.get(LAYERS_KEY)
    if isinstance(layers, (tuple, list)) and layers and all(layer in NAMES for layer in layers):
        return tuple(layers)
    return None


def layer_of_each_row(samples: Mapping[str, Any]) -> list[str]:
    """The layer of each row of a LATENT; all are foregrounds if it names no layers.

    Row i is layer i % len(layers), unless ComfyUI's batch_index says that it was another row before a batch was cut. (One seed for
    all rows is written as a batch_index too, the same number again and again.)
    """
    count = len(samples["samples"])
    layers = layers_in(samples) or (FOREGROUND,)
    index = samples.get("batch_index") or range(count)
    if len(set(index)) < count:
        index = range(count)
    return [layers[row % len(layers)] for row in index[:count]]


def foreground_rows(samples: Mapping[str, Any]) -> list[int]:
    """Rows of a LATENT that are transparent: its foregrounds, or all of them if it names no layers."""
    return [row for row, layer in enumerate(layer_of_each_row(samples)) if layer == FOREGROUND]


def check_whole_sets(count: int, layers: Sequence[str]) -> None:
    """Raises DiaphaneError unless a batch of `count` rows is made of whole sets of layers."""
    if count % len(layers):
        raise DiaphaneError(
            f"Got a batch of {count}, but {len(layers)} layers ({SEPARATOR.join(layers)}) come in sets of {len(layers)}. "
            "Use Empty Layer Latent, which makes the right latent, and keep the batch whole."
        )


def empty_latent(width: int, height: int, layers: Sequence[str], sets: int, device: torch.device) -> dict[str, Any]:
    """A LATENT of zeros for `sets` sets of layers, its size rounded to multiples of 64 pixels, halves up."""
    height, width = (max(1, (side + 32) // 64) * 8 for side in (height, width))
    return {"samples": torch.zeros(sets * len(layers), 4, height, width, device=device), LAYERS_KEY: tuple(layers)}


def layer_prompts(base: list[Any], layers: Sequence[str], prompts: Mapping[str, Any]) -> list[Any]:
    """One CONDITIONING whose rows are the layers' own prompts, in the order of the batch; ComfyUI repeats them over the sets.

    base: conditioning for layers without a prompt of their own, whose other settings (areas, control, …) are kept.
    prompts: {layer: conditioning or None}. Prompts of unequal length are repeated to a common one, as ComfyUI does it in a batch.
    Raises DiaphaneError for a prompt that is empty or made for another model.
    """
    for name, prompt in {"base": base, **prompts}.items():
        _check_prompt(name, prompt, base)
    texts = [base if prompts.get(name) is None else prompts[name] for name in layers]
    result = []
    for index, (text, settings) in enumerate(base):
        frames = [text if own is base or own is None else own[min(index, len(own) - 1)][0] for own in texts]
        length = math.lcm(*(frame.shape[1] for frame in frames))
        rows = [repeat_to_batch_size(frame, 1).repeat(1, length // frame.shape[1], 1) for frame in frames]
        result.append([torch.cat(rows), settings.copy()])
    return result


def _check_prompt(name: str, prompt: list[Any] | None, base: list[Any]) -> None:
    for text, _ in prompt or ():
        if text.numel() == 0:
            raise DiaphaneError(f"Layer Prompts got an empty prompt for {name}, {list(text.shape)}. Connect a CLIP Text Encode.")
        if text.shape[2] != base[0][0].shape[2]:
            raise DiaphaneError(
                f"Layer Prompts got prompts of different text encoders: base has {base[0][0].shape[2]} channels, {name} {text.shape[2]}. "
                "Make all of them with the CLIP of the one model that samples."
            )


def split_layers(images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """{layer: its pictures [N, H, W, C]} of a batch of N whole sets of F layers [N F, H, W, C]."""
    check_whole_sets(len(images), layers)
    frames = rearrange(images, "(n f) h w c -> f n h w c", f=len(layers))
    return dict(zip(layers, frames, strict=True))
