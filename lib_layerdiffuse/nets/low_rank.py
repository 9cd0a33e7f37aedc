"""Low-rank changes of linear layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .linear import in_sequence
from .operations import Operations


class LowRank(nn.Module):
    """`up(down(x))`: what a weight change of rank `rank` adds to a linear layer's output."""

    def __init__(self, in_width: int, width: int, rank: int, ops: Operations = nn, **factory):
        super().__init__()
        self.down = ops.Linear(in_width, rank, bias=False, **factory)
        self.up = ops.Linear(rank, width, bias=False, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x))

    def fused(self, ops: Operations, device: torch.device) -> nn.Module:
        """The whole matrix as one layer where applying it is less work than the two, else this one."""
        rank, in_width = self.down.weight.shape
        width = self.up.weight.shape[0]
        if in_width * width < rank * (in_width + width):
            return in_sequence(ops, device, self.down, self.up)
        return self
