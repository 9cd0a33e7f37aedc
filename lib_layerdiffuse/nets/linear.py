"""Linear layers that are made of others, for inference: what is the same at every step is computed once.

Products are taken in float32 and rounded once, to the type of the layers that they are made of.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .operations import Operations, holding


@torch.no_grad()
def in_sequence(ops: Operations, device: torch.device, *layers: nn.Linear) -> nn.Linear:
    """One layer for several, each on the output of the one before; `device` does the work, the result is where the first one was."""
    home = layers[0].weight
    weight = home.to(device, torch.float32)
    bias = weight.new_zeros(len(weight)) if layers[0].bias is None else layers[0].bias.to(weight)
    for layer in layers[1:]:
        matrix = layer.weight.to(weight)
        weight, bias = matrix @ weight, matrix @ bias
        if layer.bias is not None:
            bias += layer.bias.to(bias)
    has_bias = any(layer.bias is not None for layer in layers)
    return _filled(ops, weight.to(home), bias.to(home) if has_bias else None)


@torch.no_grad()
def side_by_side(ops: Operations, layers: list[nn.Linear]) -> nn.Linear:
    """One layer for several on the same input, their outputs in a row; all with a bias, or none."""
    weight = torch.cat([layer.weight for layer in layers])
    has_bias = layers[0].bias is not None
    return _filled(ops, weight, torch.cat([layer.bias for layer in layers]) if has_bias else None)


def _filled(ops: Operations, weight: Tensor, bias: Tensor | None) -> nn.Linear:
    width, in_width = weight.shape
    tensors = {"weight": weight} | ({} if bias is None else {"bias": bias})
    return holding(ops.Linear, tensors, in_width, width, bias=bias is not None).requires_grad_(False)
