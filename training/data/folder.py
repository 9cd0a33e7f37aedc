"""A user's own pictures: a folder of RGBA PNGs, each with its caption in a text file of the same name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..loop import Draws


class PictureFolder:
    """Squares of the pictures in a folder; `folder(draws)` gives this process's rows [B, 4, side, side] in [0, 1]."""

    def __init__(self, folder: Path, side: int):
        """Raises ValueError for a folder without pictures."""
        self.side = side
        self.paths = sorted(path for path in folder.rglob("*.png"))
        if not self.paths:
            raise ValueError(f"{folder} holds no PNG files. Give a folder of pictures with alpha, NAME.png and NAME.txt.")

    def __len__(self) -> int:
        return len(self.paths)

    def __call__(self, draws: Draws) -> tuple[Tensor, Draws]:
        choice = torch.randint(len(self.paths), (draws.batch,), generator=draws.generator)[draws.rows].tolist()
        where, mirrored = draws.uniform(draws.batch, 2)[draws.rows], (draws.uniform(draws.batch) < 0.5)[draws.rows].tolist()
        squares = [self.square(index, *place) for index, place in zip(choice, where.tolist(), strict=True)]
        return torch.stack([square.flip(2) if flip else square for square, flip in zip(squares, mirrored, strict=True)]), draws

    def square(self, index: int, across: float = 0.5, down: float = 0.5) -> Tensor:
        """One picture, as `read_square` gives it."""
        return read_square(self.paths[index], self.side, across, down)

    def caption(self, index: int) -> str:
        """The text beside a picture, empty if there is none."""
        path = self.paths[index].with_suffix(".txt")
        return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def read_square(path: Path, side: int, across: float = 0.5, down: float = 0.5) -> Tensor:
    """A picture, its shorter side resized to `side`, cropped at a position in [0, 1] of the rest: [4, side, side] in [0, 1]."""
    with Image.open(path) as opened:
        picture = opened.convert("RGBA")
    scale = side / min(picture.size)
    width, height = (max(side, round(length * scale)) for length in picture.size)
    # Premultiplied while it is resized: colour under transparent pixels means nothing.
    small = picture.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS).convert("RGBA")
    left, top = round((width - side) * across), round((height - side) * down)
    pixels = np.asarray(small.crop((left, top, left + side, top + side)), dtype=np.float32) / 255
    return torch.from_numpy(pixels).movedim(-1, 0)
