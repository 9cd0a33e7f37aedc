"""Drop shadows, measured as Photoshop's layer style measures them."""

from __future__ import annotations

import re
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DiaphaneError
from .blend import NORMAL
from .composite import Layer
from .gaussian import gaussian_blur, reach_of
from .straight import with_alpha


def drop_shadow(
    layer: Layer, x: int, y: int, blur: float, spread: float, colour: tuple[float, float, float], opacity: float = 1.0
) -> Layer:
    """The shadow that a layer casts: its alpha in one colour, moved by x, y. It may reach beyond the layer's own frame.

    blur: pixels from the edge, to either side, over which the shadow fades out; its sigma is half of that. spread: the share of `blur`,
    0 to 1, by which the shape grows instead.
    """
    grow = round(blur * spread)
    sigma = blur * (1.0 - spread) / 2
    reach = grow + reach_of(sigma)
    alpha = F.pad(with_alpha(layer.image)[..., 3], (reach, reach, reach, reach))
    alpha = gaussian_blur(_grown(alpha[:, None], grow), sigma)[:, 0].clamp(0.0, 1.0)
    image = torch.cat((alpha.new_tensor(colour).expand(*alpha.shape, 3), alpha[..., None]), dim=-1)
    name = f"{layer.name} shadow" if layer.name else ""
    at = {"x": layer.x + x - reach, "y": layer.y + y - reach}
    return replace(layer, image=image, name=name, mode=NORMAL, opacity=layer.opacity * opacity, **at)


def _grown(alpha: Tensor, steps: int) -> Tensor:
    """Two squares among three crosses make a regular octagon, nearly a circle."""
    for step in range(steps):
        rows = F.max_pool2d(alpha, (1, 3), stride=1, padding=(0, 1))
        columns = F.max_pool2d(rows if step % 5 % 2 else alpha, (3, 1), stride=1, padding=(1, 0))
        alpha = torch.maximum(rows, columns)
    return alpha


def rgb(colour: str) -> tuple[float, float, float]:
    """#rrggbb -> three values in [0, 1]. Raises DiaphaneError for anything else."""
    if not re.fullmatch(r"#[0-9A-Fa-f]{6}", colour):
        raise DiaphaneError(f"A colour is written as #rrggbb, for example #203040; got {colour!r:.40}. Change colour.")
    red, green, blue = bytes.fromhex(colour[1:])
    return red / 255, green / 255, blue / 255
