"""Losses on pictures."""

from __future__ import annotations

from torch import Tensor


def picture_loss(actual: Tensor, expected: Tensor, weight: Tensor | None = None) -> Tensor:
    """L1 + 2 MSE + half the L1 of the differences between neighbours, weighted per pixel ([B, 1, H, W]).

    Only squares would blur edges, which matter most in alpha.
    """
    error = actual - expected
    weight = error.new_ones(1) if weight is None else weight
    loss = (error.abs() * weight).mean() + 2 * (error.square() * weight).mean()
    for dim in (2, 3):
        loss = (
            loss + 0.5 * (error.diff(dim=dim).abs() * (weight.narrow(dim, 1, weight.shape[dim] - 1) if weight.ndim == 4 else weight)).mean()
        )
    return loss


def psnr(actual: Tensor, expected: Tensor) -> Tensor:
    """[B]: peak signal-to-noise ratio in dB of pictures [B, C, H, W] in [0, 1]."""
    return -10 * (actual - expected).square().mean(dim=(1, 2, 3)).clamp(min=1e-10).log10()
