"""The discriminator of the transparency networks: are these patches of a real picture with alpha? (Isola et al. 2017; five layers)"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PatchDiscriminator(nn.Module):
    """RGBA [B, 4, H, W] in [0, 1] -> one number for each patch, [B, 1, H/8 - 2, W/8 - 2]; high for real ones."""

    def __init__(self, channels: int = 64):
        super().__init__()
        layer_channels = [4, channels, channels * 2, channels * 4, channels * 8]
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(zip(layer_channels, layer_channels[1:], strict=False)):
            layers.append(nn.Conv2d(before, after, 4, stride=2 if i < 3 else 1, padding=1))
            if i > 0:
                layers.append(nn.GroupNorm(after // 16, after))
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers, nn.Conv2d(layer_channels[-1], 1, 4, padding=1))

    def forward(self, picture: Tensor) -> Tensor:
        return self.layers(picture * 2 - 1)


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
