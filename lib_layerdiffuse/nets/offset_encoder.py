"""The latent offset encoder (paper section 3.1): adds a picture's transparency to the latent of its colours."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from .operations import Operations, build

HALVING_CONVS = (2, 4, 6)  # three of the nine convolutions have stride 2: the offset is one eighth of the picture
CONVS = 9
OFFSET_SCALE = 300.0  # of the authors' reference release (docs/facts.md section 4)


class OffsetEncoder(nn.Module):
    """`encoder(image[B, 4, H, W] in [0, 1]) -> offset[B, C, H/8, W/8]`, raw, before any scale.

    The image is alpha and bled RGB in the order of the file: A, R, G, B for SD1.5 and SDXL; R, G, B, A for Flux (docs/facts.md section 4).
    H and W are multiples of 8. All channels come from the weights.
    """

    def __init__(self, channels: tuple[int, ...], ops: Operations = nn, **factory):
        """channels: before the first and after each of the nine convolutions."""
        super().__init__()
        self.channels = channels[1]
        self.latent_channels = channels[-1]
        blocks: list[nn.Module] = []
        for i, (before, after) in enumerate(zip(channels, channels[1:], strict=False)):
            blocks += [ops.Conv2d(before, after, 3, stride=2 if i in HALVING_CONVS else 1, padding=1, **factory), nn.SiLU()]
        self.blocks = nn.Sequential(*blocks[:-1])

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, tuple[int, ...]], ops: Operations = nn, **factory) -> OffsetEncoder:
        """The network, without weights, that weights of these shapes belong to. Raises KeyError for a missing convolution."""
        weights = [shapes[f"blocks.{2 * i}.weight"] for i in range(CONVS)]
        return cls((weights[0][1], *(shape[0] for shape in weights)), ops, **factory)

    @classmethod
    def from_state_dict(cls, sd: Mapping[str, Tensor], ops: Operations = nn, **factory) -> OffsetEncoder:
        """The network that `sd` belongs to, with its weights, for inference. `factory`: dtype and device (those of the weights)."""
        return build(cls, sd, ops, factory)

    def forward(self, image: Tensor) -> Tensor:
        return self.blocks(image)
