"""Captions as CLIP's tokens: with its own tokenizer, or offline for the few words of the procedural captions."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

START, END = 49406, 49407
LENGTH = 77

Tokenizer = Callable[[list[str]], Tensor]  # captions -> token ids [B, 77]


@lru_cache(maxsize=1)
def vocabulary() -> dict[str, list[int]]:
    """The words of procedural captions with their numbers in CLIP's vocabulary."""
    return json.loads(Path(__file__).with_name("vocabulary.json").read_text(encoding="utf-8"))


def procedural_tokens(captions: list[str]) -> Tensor:
    """Tokens of procedural captions. Raises ValueError for a word that they do not use."""
    rows = []
    for caption in captions:
        ids = [START]
        for word in caption.replace(",", " ,").split():
            if word not in vocabulary():
                raise ValueError(f"{word!r} is not a word of the procedural captions. Give --tokenizer to use CLIP's whole vocabulary.")
            ids += vocabulary()[word]
        rows.append((ids + [END] * LENGTH)[:LENGTH])
    return torch.tensor(rows)


def clip_tokenizer(folder: str) -> Tokenizer:
    """CLIP's tokenizer from a folder or a repository on the hub (ComfyUI has it in comfy/sd1_tokenizer). Needs transformers."""
    from transformers import CLIPTokenizer  # only users' own captions need it

    tokenizer = CLIPTokenizer.from_pretrained(folder)

    def tokens(captions: list[str]) -> Tensor:
        encoded = tokenizer(captions, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")["input_ids"]
        ends = (encoded == END).int().argmax(dim=1, keepdim=True)
        return torch.where(torch.arange(LENGTH) > ends, END, encoded)  # SD1.5 pads with the end token

    return tokens
