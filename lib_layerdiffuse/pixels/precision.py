"""How exactly an area says where an object is: from "anywhere in it" (precision 0) to "all of it" (precision 1)."""

from __future__ import annotations

import torch
from torch import Tensor

from .boxes import box_around
from .gaussian import gaussian_blur

BLUR = 0.35  # of the longer side of the area's box, at precision 0: the sigma of its Gaussian
SURELY = 0.9  # of what a Gaussian sees is area
VAGUE = 0.25  # precision below which an area says of no pixel that the object is there


def certain_part(area: Tensor, precision: float) -> Tensor:
    """The part of an area that the object covers in any case: the area itself at precision 1, less of its rim below, nothing below 0.25.

    area [B, 1, H, W] in [0, 1], 1 = the object is within; soft edges stay soft at precision 1 and become hard below. -> the same shape.
    """
    if precision >= 1.0:
        return area
    certain = torch.zeros_like(area)
    if precision < VAGUE:
        return certain
    for index, mask in enumerate(area[:, 0] > 0.5):
        if mask.any():
            box = box_around(mask)
            sigma = BLUR * (1.0 - precision) * max(box.width, box.height)
            certain[index] = gaussian_blur(area[index : index + 1], sigma)[0] > SURELY
    return certain
