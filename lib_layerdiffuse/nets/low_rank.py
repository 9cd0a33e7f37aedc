"""Low-rank changes of linear layers."""

from __future__ import annotations

from torch import Tensor, nn

from .operations import Operations


class LowRank(nn.Module):
    """`up(down(x))`: what a weight change of rank `rank` adds to a linear layer's output."""

    def __init__(self, in_width: int, width: int, rank: int, ops: Operations = nn, **factory):
        super().__init__()
        self.down = ops.Linear(in_width, rank, bias=False, **factory)
        self.up = ops.Linear(rank, width, bias=False, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x))
