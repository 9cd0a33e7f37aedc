"""Low-rank changes of a UNet's attention, and changed weights, in the key grammar of the released delta files (docs/facts.md section 2)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from lib_layerdiffuse.nets.low_rank import LowRank

from .unet import CrossAttention, UNet


class LowRankLinear(nn.Module):
    """A frozen linear layer and its low-rank change, which is nothing at first."""

    def __init__(self, linear: nn.Linear, rank: int):
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.change = LowRank(linear.in_features, linear.out_features, rank)
        nn.init.zeros_(self.change.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.change(x)


def add_low_rank(unet: UNet, rank: int) -> None:
    """Freeze a UNet and give every attention projection a low-rank change to be trained."""
    unet.requires_grad_(False)
    for module in list(unet.modules()):
        if isinstance(module, CrossAttention):
            for name in ("to_q", "to_k", "to_v"):
                setattr(module, name, LowRankLinear(getattr(module, name), rank))
            module.to_out[0] = LowRankLinear(cast(nn.Linear, module.to_out[0]), rank)


def low_rank_deltas(unet: UNet) -> dict[str, Tensor]:
    """`KEY::lora::0` (up) and `KEY::lora::1` (down) of a UNet that `add_low_rank` was applied to."""
    deltas = {}
    for name, module in unet.named_modules():
        if isinstance(module, LowRankLinear):
            deltas[f"diffusion_model.{name}.weight::lora::0"] = module.change.up.weight.detach()
            deltas[f"diffusion_model.{name}.weight::lora::1"] = module.change.down.weight.detach()
    return deltas


@torch.no_grad()
def full_deltas(unet: UNet, before: dict[str, Tensor]) -> dict[str, Tensor]:
    """`KEY::diff::0` of every weight that differs from `before`."""
    after = unet.state_dict()
    return {f"diffusion_model.{key}::diff::0": after[key] - tensor for key, tensor in before.items() if not torch.equal(after[key], tensor)}
