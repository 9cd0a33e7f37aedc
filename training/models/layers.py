"""Layers that several of the networks are made of."""

from __future__ import annotations

from torch import nn

from lib_layerdiffuse.nets.transparent_decoder import Upsampler

GROUPS = 32


def group_norm(channels: int, group: int | None, eps: float) -> nn.GroupNorm:
    """group: channels that are normalised together; None: 32 groups, as released."""
    return nn.GroupNorm(channels // group if group else GROUPS, channels, eps=eps)


def upsampler(channels: int) -> Upsampler:
    return Upsampler(channels, nn)
