"""Stand-in transparency networks, and pictures and latents for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import comfy.model_management as memory
import pytest
import torch
from torch import Tensor, nn

from dev.stand_ins.shapes import transparent_decoder_shapes
from dev.stand_ins.weights import transparent_decoder
from lib_layerdiffuse.comfyui.alpha.managed_network import ManagedNetwork
from lib_layerdiffuse.nets.transparent_decoder import DecoderLayout, TransparentDecoder


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def decoder() -> ManagedNetwork[TransparentDecoder]:
    return ManagedNetwork(TransparentDecoder, transparent_decoder(transparent_decoder_shapes(4), "test"))


def picture(height: int, width: int, batch: int = 1, channels: int = 4, seed: int = 0) -> Tensor:
    return torch.rand(batch, height, width, channels, generator=torch.Generator().manual_seed(seed))


def latent_for(pixels: Tensor, channels: int = 4) -> Tensor:
    height, width = (-(-side // 8) for side in pixels.shape[1:3])
    return torch.randn(len(pixels), channels, height, width, generator=torch.Generator().manual_seed(1))


class Pointwise(nn.Module):
    """A decoder whose result depends on nothing but the pixel itself, so that tiles and batches cannot change it."""

    layout = DecoderLayout(channels=(8,) * 7, attention=(False,) * 7, resnets=2, pixel_channels=3, latent_channels=4, out_channels=4)

    def __init__(self, fails: Callable[[Tensor], bool] = lambda pixel: False):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.fails = fails
        self.batches: list[tuple[int, ...]] = []

    def forward(self, pixel: Tensor, latent: Tensor) -> Tensor:
        self.batches.append(tuple(pixel.shape))
        if self.fails(pixel):
            raise memory.OOM_EXCEPTION("injected")
        alpha = latent.mean(dim=1, keepdim=True).repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
        return torch.cat((alpha, pixel), dim=1)


def managed(network: nn.Module) -> Any:
    class Made:
        @staticmethod
        def from_shapes(shapes: Mapping[str, tuple[int, ...]], ops: Any = None, **factory: Any) -> nn.Module:
            return network

    return ManagedNetwork(Made, network.state_dict())  # pyright: ignore[reportArgumentType]
