"""Low-rank changes of linear layers."""

from __future__ import annotations

from torch import Tensor, nn

from .operations import Operations


class LowRank(nn.Module):
    """`up(down(x))`: what a weight change of rank `rank` adds to a linear layer's output: [..., in_channels] -> [..., channels]."""

    def __init__(self, in_channels: int, channels: int, rank: int, ops: Operations = nn, **factory):
        super().__init__()
        self.down = ops.Linear(in_channels, rank, bias=False, **factory)
        self.up = ops.Linear(rank, channels, bias=False, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x))
