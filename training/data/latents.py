"""Latents that are encoded once and trained on many times."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

SD15_SCALE, SDXL_SCALE = 0.18215, 0.13025  # what the UNet sees is the autoencoder's latent times this


@dataclass(frozen=True)
class LatentSet:
    """N items of F frames each (F = 1 for single pictures)."""

    latents: Tensor  # [N, F, C, h, w], scaled as the UNet sees them, fp16
    tokens: Tensor  # [N, F, 77]
    control: Tensor | None = None  # [N, 3, H, W] uint8: the given layer on mid-grey
    outline: Tensor | None = None  # [N, 1, H, W] uint8: 1 inside of the foreground's outline
    without: Tensor | None = None  # as latents: what each frame is where the object is not

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def frames(self) -> int:
        return self.latents.shape[1]

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".part")
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        save_file({name: tensor.contiguous() for name, tensor in values.items() if tensor is not None}, temporary)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> LatentSet:
        return cls(**load_file(path))

    @classmethod
    def joined(cls, parts: Iterable[LatentSet]) -> LatentSet:
        """One set of several."""
        every = list(parts)
        columns = {field.name: [getattr(part, field.name) for part in every] for field in fields(cls)}
        return cls(**{name: torch.cat(column) for name, column in columns.items() if column[0] is not None})
