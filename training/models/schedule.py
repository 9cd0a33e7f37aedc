"""The noise schedule of SD1.5 and SDXL."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

TIMESTEPS = 1000
BETAS = (0.00085, 0.012)  # first and last; linear in their square roots

EPSILON, VELOCITY = "eps", "v"


@lru_cache(maxsize=1)
def alphas_cumprod() -> Tensor:
    """[1000], from almost one (clean) to almost zero (noise)."""
    betas = torch.linspace(BETAS[0] ** 0.5, BETAS[1] ** 0.5, TIMESTEPS, dtype=torch.float64).square()
    return (1 - betas).cumprod(0).float()


def noisy(clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Latents [B, C, h, w] at timesteps t [B]."""
    signal, std = _levels(clean, t)
    return signal * clean + std * noise


def target(clean: Tensor, noise: Tensor, t: Tensor, prediction: str) -> Tensor:
    """What the network is to predict: the noise, or the velocity (Salimans & Ho 2022)."""
    if prediction == EPSILON:
        return noise
    signal, std = _levels(clean, t)
    return signal * noise - std * clean


def _levels(like: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    alpha = alphas_cumprod().to(like)[t][:, None, None, None]
    return alpha.sqrt(), (1 - alpha).sqrt()
