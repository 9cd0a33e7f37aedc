"""The UNet of SD1.5 and SDXL, in ComfyUI's key names; channels, depths and conditioning are read from the weights or given."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from lib_layerdiffuse.nets.attention_sharing import AttentionSharing, SharingUnit

from .attention import attention
from .layers import group_norm, upsampler


@dataclass(frozen=True)
class UNetLayout:
    """`depths`: transformer blocks after each residual block, level by level; `middle_depth`: those of the middle block."""

    model_channels: int
    multiples: tuple[int, ...]
    depths: tuple[int, ...]
    middle_depth: int
    context_dim: int
    heads: int | None  # the same number everywhere (SD1.5); None: as many as head_dim gives (SDXL)
    head_dim: int = 64  # channels of a head where heads is None
    vector_dim: int | None = None  # SDXL's pooled text and sizes
    linear: bool = False  # SDXL: projections around the transformers are linear layers
    group: int | None = None  # channels that are normalised together; None: 32 groups, as released
    blocks: int = 2
    channels: int = 4

    @classmethod
    def of(cls, sd: Mapping[str, Tensor], *, heads: int | None = None, group: int | None = None) -> UNetLayout:
        """Read from weights; `heads` cannot be read: SD1.5 has 8, SDXL heads of 64 channels."""
        model_channels, channels = sd["input_blocks.0.0.weight"].shape[:2]
        starts = [n for n in _numbers(sd, r"input_blocks\.(\d+)\.0\.op\.weight")]
        last = max(_numbers(sd, r"input_blocks\.(\d+)\."))
        bounds = [0, *starts, last + 1]
        firsts = [start + 1 for start in bounds[:-1]]
        multiples = tuple(sd[f"input_blocks.{first}.0.out_layers.3.weight"].shape[0] // model_channels for first in firsts)
        depths = tuple(_depth(sd, f"input_blocks.{first}.1") for first in firsts)
        context = next(tensor.shape[1] for key, tensor in sd.items() if key.endswith("attn2.to_k.weight"))
        linear = next(tensor.ndim == 2 for key, tensor in sd.items() if key.endswith("proj_in.weight"))
        vector = sd["label_emb.0.0.weight"].shape[1] if "label_emb.0.0.weight" in sd else None
        return cls(
            model_channels=model_channels,
            multiples=multiples,
            depths=depths,
            middle_depth=_depth(sd, "middle_block.1"),
            context_dim=context,
            heads=heads if heads or linear else 8,
            vector_dim=vector,
            linear=linear,
            group=group,
            blocks=firsts[1] - firsts[0] - 1,
            channels=channels,
        )


def _numbers(sd: Mapping[str, Tensor], pattern: str) -> list[int]:
    return sorted({int(match[1]) for match in (re.match(pattern, key) for key in sd) if match})


def _depth(sd: Mapping[str, Tensor], prefix: str) -> int:
    return len(_numbers(sd, re.escape(prefix) + r"\.transformer_blocks\.(\d+)\."))


def norm(channels: int, layout: UNetLayout, eps: float = 1e-5) -> nn.GroupNorm:
    return group_norm(channels, layout.group, eps)


def timestep_embedding(t: Tensor, channels: int) -> Tensor:
    """[B] -> [B, channels]: cosines, then sines."""
    frequency = torch.exp(-math.log(10000) * torch.arange(channels // 2, device=t.device) / (channels // 2))
    angle = t.float()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class ResBlock(nn.Module):
    def __init__(self, in_channels: int, channels: int, layout: UNetLayout):
        super().__init__()
        self.in_layers = nn.Sequential(norm(in_channels, layout), nn.SiLU(), nn.Conv2d(in_channels, channels, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(layout.model_channels * 4, channels))
        self.out_layers = nn.Sequential(norm(channels, layout), nn.SiLU(), nn.Identity(), nn.Conv2d(channels, channels, 3, padding=1))
        self.skip_connection = nn.Conv2d(in_channels, channels, 1) if in_channels != channels else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.in_layers(x) + self.emb_layers(embedding)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class CrossAttention(nn.Module):
    def __init__(self, channels: int, context_dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context_dim, channels, bias=False)
        self.to_v = nn.Linear(context_dim, channels, bias=False)
        self.to_out = nn.Sequential(nn.Linear(channels, channels), nn.Identity())

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return self.to_out(attention(self.to_q(x), self.to_k(context), self.to_v(context), self.heads))

    def shared(self, x: Tensor, context: Tensor | None, unit: SharingUnit, control: Tensor | None) -> Tensor:
        """With the frames' own weights and attention among them (docs/facts.md section 6); context None: self-attention."""
        signal = None if control is None else rearrange(unit.control(control), "n f t c -> (n f) t c")
        h = x if signal is None else x + signal
        context = h if context is None else context
        q, k, v = (
            project(y) + unit.change(name, y)
            for name, project, y in (("q", self.to_q, h), ("k", self.to_k, context), ("v", self.to_v, context))
        )
        mixed = attention(q, k, v, self.heads)
        out = self.to_out(mixed) + unit.change("out", mixed)
        out = out + unit.temporal(h + out, self.heads, attention)
        return out if signal is None else out + signal


class Gated(nn.Module):
    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.proj = nn.Linear(in_channels, channels * 2)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.net = nn.Sequential(Gated(channels, channels * 4), nn.Identity(), nn.Linear(channels * 4, channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    def __init__(self, channels: int, layout: UNetLayout):
        super().__init__()
        heads = layout.heads or channels // layout.head_dim
        self.attn1 = CrossAttention(channels, channels, heads)
        self.attn2 = CrossAttention(channels, layout.context_dim, heads)
        self.ff = FeedForward(channels)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor, units: Sequence[SharingUnit] | None, control: Tensor | None) -> Tensor:
        n = self.norm1(x)
        x = x + (self.attn1(n, n) if units is None else self.attn1.shared(n, None, units[0], control))
        n = self.norm2(x)
        x = x + (self.attn2(n, context) if units is None else self.attn2.shared(n, context, units[1], control))
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    def __init__(self, channels: int, depth: int, layout: UNetLayout):
        super().__init__()
        self.linear = layout.linear
        self.norm = norm(channels, layout, eps=1e-6)
        self.proj_in, self.proj_out = (nn.Linear(channels, channels) if self.linear else nn.Conv2d(channels, channels, 1) for _ in range(2))
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, layout) for _ in range(depth)])

    def forward(self, x: Tensor, context: Tensor, units: Sequence[SharingUnit] | None, control: Tensor | None) -> Tensor:
        h = self.norm(x)
        h = rearrange(h if self.linear else self.proj_in(h), "b c h w -> b (h w) c")
        h = self.proj_in(h) if self.linear else h
        for block in self.transformer_blocks:
            h = block(h, context, units, control)
        h = rearrange(self.proj_out(h) if self.linear else h, "b (h w) c -> b c h w", h=x.shape[2])
        return x + (h if self.linear else self.proj_out(h))


class Downsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class UNet(nn.Module):
    """Latents [B, C, h, w] in model space (scaled), timesteps [B], text [B, T, D], SDXL's vector [B, V] -> [B, C, h, w].

    With `sharing`, rows are N sets of F consecutive frames; `control` [N, 3, 8h, 8w] in [-1, 1] is the given layer on mid-grey,
    and has as many channels as the control encoder reads.
    """

    def __init__(self, layout: UNetLayout):
        super().__init__()
        self.layout = layout
        embedding = layout.model_channels * 4
        self.time_embed = nn.Sequential(nn.Linear(layout.model_channels, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        if layout.vector_dim is not None:
            vector = nn.Sequential(nn.Linear(layout.vector_dim, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
            self.label_emb = nn.Sequential(vector)

        def block(in_channels: int, channels: int, depth: int) -> list[nn.Module]:
            return [ResBlock(in_channels, channels, layout), *([SpatialTransformer(channels, depth, layout)] if depth else [])]

        channels, last = layout.model_channels, len(layout.multiples) - 1
        skips = [channels]
        self.input_blocks = nn.ModuleList([nn.ModuleList([nn.Conv2d(layout.channels, channels, 3, padding=1)])])
        for i, (multiple, depth) in enumerate(zip(layout.multiples, layout.depths, strict=True)):
            for _ in range(layout.blocks):
                self.input_blocks.append(nn.ModuleList(block(channels, layout.model_channels * multiple, depth)))
                channels = layout.model_channels * multiple
                skips.append(channels)
            if i < last:
                self.input_blocks.append(nn.ModuleList([Downsample(channels)]))
                skips.append(channels)

        around = [ResBlock(channels, channels, layout) for _ in range(2)]
        transformer = [SpatialTransformer(channels, layout.middle_depth, layout)] if layout.middle_depth else []
        self.middle_block = nn.ModuleList([around[0], *transformer, around[1]])

        self.output_blocks = nn.ModuleList()
        for i, (multiple, depth) in reversed(list(enumerate(zip(layout.multiples, layout.depths, strict=True)))):
            for n in range(layout.blocks + 1):
                parts = block(channels + skips.pop(), layout.model_channels * multiple, depth)
                channels = layout.model_channels * multiple
                if i > 0 and n == layout.blocks:
                    parts.append(upsampler(channels))
                self.output_blocks.append(nn.ModuleList(parts))
        self.out = nn.Sequential(norm(channels, layout), nn.SiLU(), nn.Conv2d(channels, 4, 3, padding=1))

    @classmethod
    def from_state_dict(cls, sd: Mapping[str, Tensor], *, heads: int | None = None, group: int | None = None) -> UNet:
        """The network that `sd` (keys without "model.diffusion_model.") belongs to, filled, float32."""
        model = cls(UNetLayout.of(sd, heads=heads, group=group))
        model.load_state_dict(dict(sd), strict=True)
        return model

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        vector: Tensor | None = None,
        sharing: AttentionSharing | None = None,
        control: Tensor | None = None,
    ) -> Tensor:
        return self.out[-1](self.features(x, timestep, context, vector, sharing, control))

    def features(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        vector: Tensor | None = None,
        sharing: AttentionSharing | None = None,
        control: Tensor | None = None,
    ) -> Tensor:
        """What the last convolution makes the result of: [B, model_channels, h, w]."""
        embedding = self.time_embed(timestep_embedding(timestep, self.layout.model_channels))
        if vector is not None:
            embedding = embedding + self.label_emb(vector)
        units = iter(()) if sharing is None else iter(_in_forward_order(sharing))
        encoder = None if sharing is None or control is None else sharing.kwargs_encoder
        maps = {} if encoder is None else {signal.shape[2:]: signal for signal in encoder(control)}

        def run(parts: nn.Module, x: Tensor) -> Tensor:
            for part in parts.children():
                if isinstance(part, ResBlock):
                    x = part(x, embedding)
                elif isinstance(part, SpatialTransformer):
                    pair = None if sharing is None else (next(units), next(units))
                    x = part(x, context, pair, maps.get(x.shape[2:]))
                else:
                    x = part(x)
            return x

        skips = []
        for parts in self.input_blocks:
            x = run(parts, x)
            skips.append(x)
        x = run(self.middle_block, x)
        for parts in self.output_blocks:
            x = run(parts, torch.cat([x, skips.pop()], dim=1))
        return self.out[:-1](x)


def _in_forward_order(sharing: AttentionSharing) -> list[SharingUnit]:
    """The released files keep the middle's two units last; it comes after the six input blocks."""
    units = list(sharing.units)
    return [*units[:12], *units[-2:], *units[12:-2]]
