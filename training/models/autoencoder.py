"""The variational autoencoder of the latent diffusion models (Rombach et al. 2022), with ComfyUI's key names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import group_norm, upsampler

LOG_VARIANCE_RANGE = (-30.0, 20.0)


@dataclass(frozen=True)
class AutoencoderLayout:
    """Channels and depth; `group` is the number of channels that are normalised together (None: 32 groups, as released)."""

    channels: int
    multiples: tuple[int, ...]
    blocks: int
    latent_channels: int = 4
    group: int | None = None

    @classmethod
    def of(cls, sd: Mapping[str, Tensor], group: int | None = None) -> AutoencoderLayout:
        """Read from weights. Raises KeyError for a key that every such network has."""
        channels = sd["encoder.conv_in.weight"].shape[0]
        found = [re.match(r"encoder\.down\.(\d+)\.block\.(\d+)\.conv2\.weight", key) for key in sd]
        levels = {(int(match[1]), int(match[2])): sd[match[0]].shape[0] for match in found if match}
        depth = 1 + max(level for level, _ in levels)
        multiples = tuple(levels[level, 0] // channels for level in range(depth))
        return cls(channels, multiples, 1 + max(block for _, block in levels), sd["post_quant_conv.weight"].shape[0], group)


class ResnetBlock(nn.Module):
    def __init__(self, in_channels: int, channels: int, group: int | None):
        super().__init__()
        self.norm1 = norm(in_channels, group)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.norm2 = norm(channels, group)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(in_channels, channels, 1) if in_channels != channels else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class AttnBlock(nn.Module):
    def __init__(self, channels: int, group: int | None):
        super().__init__()
        self.norm = norm(channels, group)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (project(h).flatten(2).transpose(1, 2).unsqueeze(1) for project in (self.q, self.k, self.v))  # BCHW -> B1(HW)C
        mixed = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2).reshape(x.shape)
        return x + self.proj_out(mixed)


class Downsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


def norm(channels: int, group: int | None) -> nn.GroupNorm:
    return group_norm(channels, group, eps=1e-6)


class Middle(nn.Module):
    def __init__(self, channels: int, group: int | None):
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, group)
        self.attn_1 = AttnBlock(channels, group)
        self.block_2 = ResnetBlock(channels, channels, group)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class DownLevel(nn.Module):
    def __init__(self, blocks: list[nn.Module], downsample: Downsample | None):
        super().__init__()
        self.block = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class UpLevel(nn.Module):
    def __init__(self, blocks: list[nn.Module], upsample: nn.Module | None):
        super().__init__()
        self.block = nn.ModuleList(blocks)
        self.upsample = upsample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        return x if self.upsample is None else self.upsample(x)


class Encoder(nn.Module):
    def __init__(self, layout: AutoencoderLayout):
        super().__init__()
        group = layout.group
        self.conv_in = nn.Conv2d(3, layout.channels, 3, padding=1)
        self.down = nn.ModuleList()
        channels, last = layout.channels, len(layout.multiples) - 1
        for i, multiple in enumerate(layout.multiples):
            before, channels = channels, layout.channels * multiple
            blocks: list[nn.Module] = [ResnetBlock(before if n == 0 else channels, channels, group) for n in range(layout.blocks)]
            self.down.append(DownLevel(blocks, Downsample(channels) if i < last else None))
        self.mid = Middle(channels, group)
        self.norm_out = norm(channels, group)
        self.conv_out = nn.Conv2d(channels, 2 * layout.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    def __init__(self, layout: AutoencoderLayout):
        super().__init__()
        group = layout.group
        channels = layout.channels * layout.multiples[-1]
        self.conv_in = nn.Conv2d(layout.latent_channels, channels, 3, padding=1)
        self.mid = Middle(channels, group)
        parts: list[nn.Module] = []
        for i, multiple in reversed(list(enumerate(layout.multiples))):
            before, channels = channels, layout.channels * multiple
            blocks: list[nn.Module] = [ResnetBlock(before if n == 0 else channels, channels, group) for n in range(layout.blocks + 1)]
            parts.insert(0, UpLevel(blocks, upsampler(channels) if i > 0 else None))
        self.up = nn.ModuleList(parts)
        self.norm_out = norm(channels, group)
        self.conv_out = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Autoencoder(nn.Module):
    """Pictures [B, 3, H, W] in [-1, 1] <-> latents [B, C, H/8, W/8], raw VAE space (not scaled)."""

    def __init__(self, layout: AutoencoderLayout):
        super().__init__()
        channels = layout.latent_channels
        self.encoder = Encoder(layout)
        self.decoder = Decoder(layout)
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.post_quant_conv = nn.Conv2d(channels, channels, 1)

    @classmethod
    def from_state_dict(cls, sd: Mapping[str, Tensor], group: int | None = None) -> Autoencoder:
        """The network that `sd` (keys as in ComfyUI's VAE files) belongs to, filled, float32."""
        model = cls(AutoencoderLayout.of(sd, group))
        model.load_state_dict(dict(sd), strict=True)
        return model

    def posterior(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latent."""
        mean, log_variance = self.quant_conv(self.encoder(picture)).float().chunk(2, dim=1)
        return mean, torch.exp(0.5 * log_variance.clamp(*LOG_VARIANCE_RANGE))

    def decode(self, latent: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(latent))

    @torch.no_grad()
    def standardise(self, shift: Tensor, scale: Tensor) -> None:
        """Change the weights so that latents are (latent - shift) * scale, [C] each; decoded pictures do not change.

        SD1.5's latent format has one scale and no shift: a latent space of one's own is converted to it here.
        """
        channels = len(shift)
        weight, bias, bias_back = self.quant_conv.weight, cast(Tensor, self.quant_conv.bias), cast(Tensor, self.post_quant_conv.bias)
        weight[:channels] *= scale[:, None, None, None]
        bias[:channels] = (bias[:channels] - shift) * scale
        bias[channels:] += 2 * scale.log()
        bias_back += (self.post_quant_conv.weight[:, :, 0, 0] * shift).sum(1)
        self.post_quant_conv.weight /= scale[None, :, None, None]
