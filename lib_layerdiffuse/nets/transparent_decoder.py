"""The latent transparency decoder (paper section 3.1): estimates alpha and colour from a decoded picture and its latent.

A UNet over the picture; the latent is added to its features at one eighth, where both have the same size. Layout and key names are those
of the released files (docs/facts.md section 3); the channels and the number of blocks come from the weights.

Letters of shapes: B pictures, C channels, H and W height and width of the map.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .operations import Operations, build
from .strips import joined, norm_silu_conv, upsample_conv

NORM_GROUPS = 4
NORM_EPS = 1e-5
HEAD_DIM = 8
FUSED_ATTENTION = ("cpu", "cuda")  # devices on which torch computes attention without holding its scores
SCORES = 1 << 28  # attention scores that are held at a time on any other device: Apple's take no tensor of 4 GiB
LATENT_LEVEL = 3  # the latent is one eighth of the picture: it joins after three downsamplers


@dataclass(frozen=True)
class DecoderLayout:
    """What the weights say about the network."""

    channels: tuple[int, ...]  # of each level, the largest maps first
    attention: tuple[bool, ...]
    resnets: int
    pixel_channels: int
    latent_channels: int
    out_channels: int

    @classmethod
    def of(cls, shapes: Mapping[str, tuple[int, ...]]) -> DecoderLayout:
        """Read the layout from {key: shape}. Raises KeyError for a key that every such network has."""
        indices = [re.match(r"down_blocks\.(\d+)\.resnets\.(\d+)\.", key) for key in shapes]
        found = [(int(match[1]), int(match[2])) for match in indices if match]
        if not found:
            raise KeyError("down_blocks.0.resnets.0.conv1.weight")
        levels = range(1 + max(block for block, _ in found))
        resnets = 1 + max(resnet for _, resnet in found)
        for key in (f"down_blocks.0.resnets.{resnet}.conv1.weight" for resnet in range(resnets)):
            if key not in shapes:  # before a network is built with as many as the file's keys count to
                raise KeyError(key)
        return cls(
            channels=tuple(shapes[f"down_blocks.{level}.resnets.0.conv1.weight"][0] for level in levels),
            attention=tuple(f"down_blocks.{level}.attentions.0.to_q.weight" in shapes for level in levels),
            resnets=resnets,
            pixel_channels=shapes["conv_in.weight"][1],
            latent_channels=shapes["latent_conv_in.weight"][1],
            out_channels=shapes["conv_out.weight"][0],
        )

    @property
    def multiple(self) -> int:
        """Height and width of the picture have to be multiples of this."""
        return 2 ** (len(self.channels) - 1)

    def attention_scores(self, device: torch.device, pixels: int) -> int:
        """How many attention scores `device` holds at a time for one picture with this number of pixels."""
        if device.type in FUSED_ATTENTION:
            return 0
        level = self.attention.index(True) if any(self.attention) else len(self.channels) - 1  # the middle block has it in any case
        return min(SCORES, _heads(self.channels[level]) * (pixels >> 2 * level) ** 2)


class ResnetBlock(nn.Module):
    def __init__(self, in_channels: int, channels: int, ops: Operations, **factory):
        super().__init__()
        self.norm1 = ops.GroupNorm(NORM_GROUPS, in_channels, eps=NORM_EPS, **factory)
        self.conv1 = ops.Conv2d(in_channels, channels, 3, padding=1, **factory)
        self.norm2 = ops.GroupNorm(NORM_GROUPS, channels, eps=NORM_EPS, **factory)
        self.conv2 = ops.Conv2d(channels, channels, 3, padding=1, **factory)
        self.conv_shortcut = ops.Conv2d(in_channels, channels, 1, **factory) if in_channels != channels else None

    def forward(self, *parts: Tensor) -> Tensor:
        """parts: maps that are concatenated; without gradients, the first of several is overwritten."""
        if not torch.is_grad_enabled():
            h = norm_silu_conv(parts, self.norm1, self.conv1)
            into = parts[0] if len(parts) > 1 and parts[0].shape == h.shape else None
            return norm_silu_conv([h], self.norm2, self.conv2, plus=parts, shortcut=self.conv_shortcut, into=into)
        x = joined(parts)
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class SelfAttention(nn.Module):
    def __init__(self, channels: int, ops: Operations, **factory):
        super().__init__()
        self.group_norm = ops.GroupNorm(NORM_GROUPS, channels, eps=NORM_EPS, **factory)
        self.to_q = ops.Linear(channels, channels, **factory)
        self.to_k = ops.Linear(channels, channels, **factory)
        self.to_v = ops.Linear(channels, channels, **factory)
        self.to_out = nn.ModuleList([ops.Linear(channels, channels, **factory)])

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)  # BCHW -> B(HW)C
        q, k, v = (project(tokens).view(b, h * w, _heads(c), HEAD_DIM).transpose(1, 2) for project in (self.to_q, self.to_k, self.to_v))
        mixed = _attention(q, k, v).transpose(1, 2).reshape(b, h * w, c)
        return x + self.to_out[0](mixed).transpose(1, 2).view(b, c, h, w)


def _heads(channels: int) -> int:
    return channels // HEAD_DIM


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention of [B, heads, tokens, HEAD_DIM], for as many queries at a time as the device can hold the scores of."""
    batch, heads, tokens = q.shape[:3]
    queries = tokens if q.device.type in FUSED_ATTENTION else max(1, SCORES // (batch * heads * tokens))
    return torch.cat([F.scaled_dot_product_attention(some, k, v) for some in q.split(queries, dim=2)], dim=2)


class Downsampler(nn.Module):
    def __init__(self, channels: int, ops: Operations, **factory):
        super().__init__()
        self.conv = ops.Conv2d(channels, channels, 3, stride=2, padding=1, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsampler(nn.Module):
    def __init__(self, channels: int, ops: Operations, **factory):
        super().__init__()
        self.conv = ops.Conv2d(channels, channels, 3, padding=1, **factory)

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return upsample_conv(x, self.conv)
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class DownBlock(nn.Module):
    def __init__(self, in_channels: int, channels: int, resnets: int, attention: bool, down: bool, ops: Operations, **factory):
        super().__init__()
        self.resnets = nn.ModuleList([ResnetBlock(in_channels if i == 0 else channels, channels, ops, **factory) for i in range(resnets)])
        self.attentions = nn.ModuleList([SelfAttention(channels, ops, **factory) for _ in range(resnets)]) if attention else None
        self.downsamplers = nn.ModuleList([Downsampler(channels, ops, **factory)]) if down else None

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        for i, resnet in enumerate(self.resnets):
            x = resnet(x)
            if self.attentions is not None:
                x = self.attentions[i](x)
            skips.append(x)
        if self.downsamplers is not None:
            x = self.downsamplers[0](x)
            skips.append(x)
        return x


class MidBlock(nn.Module):
    def __init__(self, channels: int, ops: Operations, **factory):
        super().__init__()
        self.resnets = nn.ModuleList([ResnetBlock(channels, channels, ops, **factory) for _ in range(2)])
        self.attentions = nn.ModuleList([SelfAttention(channels, ops, **factory)])

    def forward(self, x: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class UpBlock(nn.Module):
    def __init__(self, in_channels: int, channels: int, skip_channels: list[int], attention: bool, up: bool, ops: Operations, **factory):
        super().__init__()
        inputs = [in_channels] + [channels] * (len(skip_channels) - 1)
        self.resnets = nn.ModuleList(
            [ResnetBlock(before + skip, channels, ops, **factory) for before, skip in zip(inputs, skip_channels, strict=True)]
        )
        self.attentions = nn.ModuleList([SelfAttention(channels, ops, **factory) for _ in skip_channels]) if attention else None
        self.upsamplers = nn.ModuleList([Upsampler(channels, ops, **factory)]) if up else None

    def forward(self, x: Tensor, skip: Callable[[], Tensor]) -> Tensor:
        """skip: gives the maps of the way down, the last one first."""
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, skip())
            if self.attentions is not None:
                x = self.attentions[i](x)
        return x if self.upsamplers is None else self.upsamplers[0](x)


class TransparentDecoder(nn.Module):
    """Picture + latent -> picture with alpha, one pass.

    `decoder(pixel[B, 3, H, W] in [0, 1], latent[B, C, H/8, W/8] in raw VAE space) -> [B, 4, H, W]`, not clipped, channels in the order
    of the file (A, R, G, B for SD1.5 and SDXL; R, G, B, A for Flux). H and W are multiples of `layout.multiple` (64 as released).
    """

    def __init__(self, layout: DecoderLayout, ops: Operations = nn, **factory):
        super().__init__()
        self.layout = layout
        last = len(layout.channels) - 1
        self.conv_in = ops.Conv2d(layout.pixel_channels, layout.channels[0], 3, padding=1, **factory)
        self.latent_conv_in = ops.Conv2d(layout.latent_channels, layout.channels[LATENT_LEVEL - 1], 1, **factory)

        self.down_blocks = nn.ModuleList()
        skip_channels = [layout.channels[0]]
        for level, channels in enumerate(layout.channels):
            in_channels = layout.channels[max(level - 1, 0)]
            self.down_blocks.append(DownBlock(in_channels, channels, layout.resnets, layout.attention[level], level < last, ops, **factory))
            skip_channels += [channels] * (layout.resnets + (level < last))

        self.mid_block = MidBlock(layout.channels[-1], ops, **factory)

        self.up_blocks = nn.ModuleList()
        for level in reversed(range(len(layout.channels))):
            in_channels = layout.channels[min(level + 1, last)]
            skips = [skip_channels.pop() for _ in range(layout.resnets + 1)]
            self.up_blocks.append(UpBlock(in_channels, layout.channels[level], skips, layout.attention[level], level > 0, ops, **factory))

        self.conv_norm_out = ops.GroupNorm(NORM_GROUPS, layout.channels[0], eps=NORM_EPS, **factory)
        self.conv_out = ops.Conv2d(layout.channels[0], layout.out_channels, 3, padding=1, **factory)

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, tuple[int, ...]], ops: Operations = nn, **factory) -> TransparentDecoder:
        """The network, without weights, that weights of these shapes belong to. Raises KeyError for a key that every such network has."""
        return cls(DecoderLayout.of(shapes), ops, **factory)

    @classmethod
    def from_state_dict(cls, sd: Mapping[str, Tensor], ops: Operations = nn, **factory) -> TransparentDecoder:
        """The network that `sd` belongs to, with its weights, for inference. `factory`: dtype and device (those of the weights)."""
        return build(cls, sd, ops, factory)

    def forward(self, pixel: Tensor, latent: Tensor) -> Tensor:
        x = self.conv_in(pixel)
        # The first map is among the largest and is used last: it is computed again.
        skips = [x] if torch.is_grad_enabled() else []

        def skip() -> Tensor:
            return skips.pop() if skips else self.conv_in(pixel)

        for level, block in enumerate(self.down_blocks):
            if level == LATENT_LEVEL:
                x = x + self.latent_conv_in(latent)
            x = block(x, skips)
        x = self.mid_block(x)
        for block in self.up_blocks:
            x = block(x, skip)
        if not torch.is_grad_enabled():
            return norm_silu_conv([x], self.conv_norm_out, self.conv_out)
        return self.conv_out(F.silu(self.conv_norm_out(x)))
