"""Diffusion on latents: equation 7 (transparent pictures) and equations 8-9 (layers that share attention).

What is trained is whatever needs a gradient: the whole UNet, its text encoder, low-rank changes, or an attention sharing network
around a frozen UNet.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from lib_layerdiffuse.nets.attention_sharing import AttentionSharing

from ..data.latents import LatentSet
from ..data.tokens import END, LENGTH, START
from ..loop import Draws, Objective
from ..models.schedule import TIMESTEPS, noisy, target
from ..models.sdxl_text import SDXLText
from ..models.text_encoder import TextEncoder
from ..models.unet import UNet

FIRST = 0.15  # share of the items that is in use at the start, if it widens
CAPTION_DROPOUT = 0.1  # share of captions that are left empty, for guidance without a classifier


@dataclass(frozen=True)
class Step:
    """What one step learns from: N items of F frames each, and what steers them."""

    items: Tensor  # [N], their places in the set
    clean: Tensor  # [(N F), C, h, w]
    noise: Tensor  # as clean
    t: Tensor  # [(N F)]
    text: Tensor  # [(N F), T, D]
    vector: Tensor | None  # [(N F), V]
    control: Tensor | None  # [N, 3, H, W] in [-1, 1]


class DiffusionObjective(Objective):
    """Mean squared error of the predicted noise or velocity. All frames of an item are at the same timestep."""

    def __init__(
        self,
        unet: UNet,
        text_encoder: TextEncoder | SDXLText,
        data: LatentSet,
        *,
        prediction: str,
        sharing: AttentionSharing | None = None,
        same_caption: float = 0.0,
        widens_until: float = 0.0,
    ):
        """same_caption: share of items whose frames all get the last frame's caption, as a user who writes one prompt.

        widens_until: progress up to which only the first items are in use, more and more of them: the simple ones.
        """
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder
        self.sharing = sharing
        self.data = data
        self.prediction = prediction
        self.same_caption = same_caption
        self.widens_until = widens_until

    def forward(self, draws: Draws, player: str = "") -> dict[str, Tensor]:
        step = self.step(draws)
        x = noisy(step.clean, step.noise, step.t)
        predicted = self.unet(x, step.t, step.text, step.vector, self.sharing, step.control).float()
        error = (predicted - target(step.clean, step.noise, step.t, self.prediction)).square().mean(dim=(1, 2, 3))
        losses = {"total": error.mean()}
        frames = self.data.frames
        if frames > 1:
            losses |= {f"frame_{i}": part.mean() for i, part in enumerate(rearrange(error, "(n f) -> f n", f=frames))}
        return losses

    def step(self, draws: Draws) -> Step:
        """What one step learns from."""
        device = next(self.parameters()).device
        frames = self.data.frames
        items = self.items(draws)
        shape = self.data.latents.shape[1:]
        noise = draws.normal(draws.batch, *shape)[draws.rows]
        t = (draws.uniform(draws.batch) * TIMESTEPS).long()[draws.rows]
        empty = (draws.uniform(draws.batch, 1) < CAPTION_DROPOUT)[draws.rows]
        same = (draws.uniform(draws.batch, 1, 1) < self.same_caption)[draws.rows]

        tokens = self.data.tokens[items]
        tokens = torch.where(same, tokens[:, -1:], tokens)
        tokens = torch.where(empty[:, None], torch.tensor([START] + [END] * (LENGTH - 1)), tokens)
        latents = self.data.latents[items].float()
        clean, noise, tokens = (rearrange(x, "n f ... -> (n f) ...").to(device) for x in (latents, noise, tokens))
        t = repeat(t, "n -> (n f)", f=frames).to(device)
        control = None if self.data.control is None else self.data.control[items].to(device).float() / 127.5 - 1

        encoded = self.text_encoder(tokens)
        text, vector = encoded if isinstance(encoded, tuple) else (encoded, None)
        return Step(items, clean, noise, t, text, vector, control)

    def items(self, draws: Draws) -> Tensor:
        """Which items a step looks at: every one once, in another order, before any comes again, unless simple ones go first."""
        if draws.progress < self.widens_until:
            fraction = FIRST + (1 - FIRST) * draws.progress / self.widens_until
            return (draws.uniform(draws.batch) * int(len(self.data) * fraction)).long()[draws.rows]
        count, first = len(self.data), draws.step * draws.batch
        places = torch.arange(first, first + draws.batch)[draws.rows]
        return torch.tensor([_order(count, place // count)[place % count] for place in places.tolist()])


@lru_cache(maxsize=2)
def _order(count: int, epoch: int) -> list[int]:
    return torch.randperm(count, generator=torch.Generator().manual_seed(epoch)).tolist()


def sharing_for(unet: UNet, frames: int, rank: int, control_widths: tuple[int, ...] = ()) -> AttentionSharing:
    """A new attention sharing network for a UNet in SD1.5's layout; at first it changes nothing.

    control_widths: of the eight convolutions of the control encoder, empty for files without control.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for n, module in enumerate(attention_modules(unet)):
        name, width = f"hookers.layers.{n}", module.to_q.weight.shape[0]
        for projection in ("q", "k", "v", "out"):
            into = module.to_k.weight.shape[1] if projection in "kv" else width
            for frame in range(frames):
                shapes[f"{name}.to_{projection}_lora.{frame}.down.weight"] = (rank, into)
                shapes[f"{name}.to_{projection}_lora.{frame}.up.weight"] = (width, rank)
        for part in "iqkvo":
            shapes |= {f"{name}.temporal_{part}.weight": (width, width), f"{name}.temporal_{part}.bias": (width,)}
        shapes |= {f"{name}.temporal_n.weight": (width,), f"{name}.temporal_n.bias": (width,)}
        for frame in range(frames if control_widths else 0):
            last = control_widths[-1]
            shapes |= _conv(f"{name}.control_convs.{frame}.0", last, last, 3) | _conv(f"{name}.control_convs.{frame}.2", width, last, 1)
    widths = (3, *control_widths)
    for n, (before, after) in enumerate(zip(widths, control_widths, strict=False)):
        shapes |= _conv(f"kwargs_encoder.blocks_0.{2 * n}", after, before, 3)
    for part in (1, 2, 3) if control_widths else ():
        for n in (0, 2):
            shapes |= _conv(f"kwargs_encoder.blocks_{part}.{n}", widths[-1], widths[-1], 3)

    sharing = AttentionSharing.from_shapes(shapes)
    for unit in sharing.units:
        silent = [low_rank.up.weight for name in ("q", "k", "v", "out") for low_rank in getattr(unit, f"to_{name}_lora")]
        silent += [unit.temporal_o.weight, unit.temporal_o.bias]
        for conv in unit.control_convs or ():
            silent += list(cast(nn.Sequential, conv)[2].parameters())
        for parameter in silent:
            torch.nn.init.zeros_(parameter)
    return sharing


def attention_modules(unet: UNet) -> list:
    """The 32 attention modules in the order of the released files: the middle's come last."""
    blocks = [*unet.input_blocks, *unet.output_blocks, unet.middle_block]
    transformers = [part.transformer_blocks[0] for block in blocks for part in block if hasattr(part, "transformer_blocks")]
    return [attention for block in transformers for attention in (block.attn1, block.attn2)]


def _conv(name: str, channels: int, in_channels: int, side: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (channels, in_channels, side, side), f"{name}.bias": (channels,)}
