"""Pictures -> latents to train a diffusion model on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lib_layerdiffuse.nets.offset_encoder import OFFSET_SCALE, OffsetEncoder

from .data.latents import LatentSet
from .data.layer_folder import BACKGROUND, BLENDED, FOREGROUND
from .data.procedural import LayerBatch, over
from .data.sprites import GREY
from .data.tokens import Tokenizer
from .loop import load_weights
from .models.autoencoder import Autoencoder
from .stages.transparency import bleed, on_grey, raw_offset


class LatentEncoder:
    """An autoencoder and, for pictures with alpha, an offset encoder; results as the UNet sees them, [B, C, h, w] fp16."""

    def __init__(self, autoencoder: Autoencoder, encoder: OffsetEncoder, scale: float, cpu: bool = False):
        device = torch.device("cpu" if cpu or not torch.cuda.is_available() else "cuda")
        self.autoencoder = autoencoder.to(device).eval()
        self.encoder = encoder.to(device).eval()
        self.scale = scale
        self.device = device

    @torch.no_grad()
    def opaque(self, picture: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1]"""
        return self._scaled(self.autoencoder.posterior(picture.to(self.device) * 2 - 1)[0])

    @torch.no_grad()
    def transparent(self, rgba: Tensor) -> Tensor:
        """[B, 4, H, W] in [0, 1], straight alpha"""
        rgba = rgba.to(self.device)
        mean, std = self.autoencoder.posterior(on_grey(rgba) * 2 - 1)
        return self._scaled(mean + std * OFFSET_SCALE * raw_offset(self.encoder, rgba[:, 3:], bleed(rgba)))

    def _scaled(self, latent: Tensor) -> Tensor:
        return (latent * self.scale).half().cpu()


def encode_layers(
    encoder: LatentEncoder, drawn: LayerBatch, frames: Sequence[str], given: str | None, tokenizer: Tokenizer, area: bool = False
) -> LatentSet:
    """Sets of layers as latents, `frames` ("foreground", "background", "blended") in this order; given: the layer that steers them.

    area: with what a trained brush needs, the outlines, and each frame without the object.
    """
    latents = {
        FOREGROUND: lambda: encoder.transparent(drawn.foreground),
        BACKGROUND: lambda: encoder.opaque(drawn.background),
        BLENDED: lambda: encoder.opaque(drawn.blended),
    }
    captions = {FOREGROUND: drawn.foreground_captions, BACKGROUND: drawn.background_captions, BLENDED: drawn.blended_captions}
    control = {FOREGROUND: lambda: over(drawn.foreground, GREY), BACKGROUND: lambda: drawn.background}
    return LatentSet(
        torch.stack([latents[frame]() for frame in frames], dim=1),
        torch.stack([tokenizer(captions[frame]) for frame in frames], dim=1),
        (control[given]() * 255).round().to(torch.uint8) if given else None,
        drawn.outline.to(torch.uint8) if area else None,
        _without_object(encoder, drawn, frames) if area else None,
    )


def _without_object(encoder: LatentEncoder, drawn: LayerBatch, frames: Sequence[str]) -> Tensor:
    """What each frame is where the object is not: a transparent picture, and the background. -> [B, F, C, h, w]"""
    background = encoder.opaque(drawn.background)
    nothing = encoder.transparent(torch.zeros_like(drawn.foreground[:1])).expand_as(background)
    return torch.stack([nothing if frame == FOREGROUND else background for frame in frames], dim=1)


def load_offset_encoder(path: Path) -> OffsetEncoder:
    return OffsetEncoder.from_state_dict(load_weights(path))
