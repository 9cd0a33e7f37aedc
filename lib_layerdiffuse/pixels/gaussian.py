"""Blurring."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SIGMAS = 3  # of the Gaussian, which is cut off there


def reach_of(sigma: float) -> int:
    """How far `gaussian_blur` looks, in pixels."""
    return math.ceil(SIGMAS * sigma)


def gaussian_blur(planes: Tensor, sigma: float) -> Tensor:
    """[B, C, H, W] under a Gaussian of `sigma` pixels; beyond the border everything is 0."""
    if sigma <= 0.0:
        return planes
    radius = reach_of(sigma)
    distance = torch.arange(-radius, radius + 1, dtype=planes.dtype, device=planes.device)
    kernel = (-0.5 * (distance / sigma) ** 2).exp()
    kernel = (kernel / kernel.sum()).expand(planes.shape[1], 1, 1, -1)
    rows = F.conv2d(planes, kernel, padding=(0, radius), groups=len(kernel))
    return F.conv2d(rows, kernel.mT, padding=(radius, 0), groups=len(kernel))
