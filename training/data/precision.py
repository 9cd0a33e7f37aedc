"""Areas from an exact outline to its box (SmartBrush, equation 7): how precisely they say what shape an object has."""

from __future__ import annotations

import torch
from torch import Tensor

from lib_layerdiffuse.pixels.boxes import box_around
from lib_layerdiffuse.pixels.gaussian import gaussian_blur

COARSEST = 4  # S: at 0 the area is the outline, at S its box
REACH = 0.25  # sigma of the blur just before S, as a share of the longer side of the box
LEVEL = 0.1  # of a blurred outline, from which on a pixel is in the area


def box(outline: Tensor) -> Tensor:
    """The box around an outline: [H, W] bool -> the same; nothing around nothing."""
    filled = torch.zeros_like(outline)
    if outline.any():
        found = box_around(outline)
        left, top = int(found.x), int(found.y)
        filled[top : top + int(found.height), left : left + int(found.width)] = True
    return filled


def area(outline: Tensor, s: int) -> Tensor:
    """The area [H, W] bool that says where an object with this outline [H, W] bool is, with precision s (0 to COARSEST).

    Areas are nested: each holds the outline, and those of smaller s.
    """
    around = box(outline)
    if s == 0 or not around.any():
        return outline.clone()
    if s >= COARSEST:
        return around
    longest = int(max(around.sum(dim=0).max(), around.sum(dim=1).max()))
    nested = outline.clone()
    for step in range(1, s + 1):
        blurred = gaussian_blur(outline.float()[None, None], REACH * step / COARSEST * longest)[0, 0]
        nested |= blurred > LEVEL
    return nested & around
