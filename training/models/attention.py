"""Attention in the way that trains fastest on the device at hand."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """q [B, T, C], k, v [B, S, C] -> [B, T, C]; bias [T, S] is added to the scores."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    if q.device.type == "cpu":  # the fused kernel's backward pass is far slower there
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        scores = scores.float() if bias is None else scores.float() + bias
        mixed = scores.softmax(dim=-1).to(v.dtype) @ v
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias.to(q.dtype))
    return mixed.transpose(1, 2).flatten(2)
