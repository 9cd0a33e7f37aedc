"""A user's own layers: NAME.foreground.png and NAME.background.png, and their captions."""

from __future__ import annotations

from pathlib import Path

import torch

from .folder import read_square
from .procedural import LayerBatch

FOREGROUND, BACKGROUND, BLENDED = "foreground", "background", "blended"
INSIDE = 0.5  # alpha from which on a pixel counts as inside of a picture's outline


class LayerFolder:
    """Sets of layers in a folder, as squares."""

    def __init__(self, folder: Path, side: int):
        """Raises ValueError for a folder without layers, or where one of a pair is missing."""
        self.side = side
        self.names = sorted(path.with_suffix("").with_suffix("") for path in folder.rglob(f"*.{FOREGROUND}.png"))
        if not self.names:
            raise ValueError(f"{folder} holds no NAME.{FOREGROUND}.png. Make such a folder with training.commands.dataset.")
        for name in self.names:
            if not layer_file(name, BACKGROUND, "png").is_file():
                raise ValueError(f"{layer_file(name, BACKGROUND, 'png')} is missing beside its foreground.")

    def __len__(self) -> int:
        return len(self.names)

    def block(self, first: int, count: int) -> LayerBatch:
        """`count` sets from `first` on, fewer at the end."""
        names = self.names[first : first + count]
        foreground = torch.stack([read_square(layer_file(name, FOREGROUND, "png"), self.side) for name in names])
        return LayerBatch(
            foreground=foreground,
            background=torch.stack([read_square(layer_file(name, BACKGROUND, "png"), self.side)[:3] for name in names]),
            foreground_captions=[_caption(name, FOREGROUND) for name in names],
            background_captions=[_caption(name, BACKGROUND) for name in names],
            blended_captions=[_caption(name, BLENDED) for name in names],
            outline=foreground[:, 3:] > INSIDE,
        )


def layer_file(name: Path, layer: str, suffix: str) -> Path:
    """NAME.LAYER.SUFFIX"""
    return name.with_name(f"{name.name}.{layer}.{suffix}")


def _caption(name: Path, layer: str) -> str:
    path = layer_file(name, layer, "txt")
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""
