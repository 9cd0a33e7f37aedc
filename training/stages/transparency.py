"""Latent transparency (paper section 3.1, equations 1-6): store alpha in the latent of a picture, and read it from there.

An encoder adds an offset to the latent of the picture on mid-grey, small enough that the frozen autoencoder decodes the picture as
before; a decoder estimates alpha and colour from the decoded picture and the latent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from lib_layerdiffuse.nets.eight_passes import alpha_first
from lib_layerdiffuse.nets.offset_encoder import OFFSET_SCALE, OffsetEncoder
from lib_layerdiffuse.nets.transparent_decoder import DecoderLayout, TransparentDecoder
from lib_layerdiffuse.pixels import straight
from lib_layerdiffuse.pixels.bleed import bleed_rgb

from ..loop import Draws, Objective
from ..losses import picture_loss
from ..models.autoencoder import Autoencoder
from ..models.patch_gan import PatchDiscriminator, discriminator_loss

HIDDEN_COLOUR = 0.05  # weight of colour where alpha is 0
IDENTITY_START = 0.02  # of the identity loss's weight, at the start
GAIN = 1.6  # of the encoder's convolutions at the start: the std after SiLU is then about that before the convolution
LAST_GAIN = 7.0  # of its last convolution: the offset is about half the posterior's std then


class Pictures(Protocol):
    """Where a step's pictures [B, 4, H, W] (straight alpha, in [0, 1]) for this process come from, and the draws for that many."""

    def __call__(self, draws: Draws) -> tuple[Tensor, Draws]: ...


@dataclass(frozen=True)
class TransparencySettings:
    """Weights of the losses as published; dropout for the robust decoder.

    At first the identity loss has a small weight and nothing is dropped: the offset has to be large until the decoder has learnt to
    read it. With the full weight from the first step on the offset vanishes, and alpha is guessed from the picture alone.
    """

    reconstruction: float = 1.0
    alpha: float = 1.0  # of alpha beside colour in the reconstruction loss
    identity: float = 1.0
    identity_rises: tuple[float, float] = (0.05, 0.11)  # progress from which to which its weight grows to the full one
    size: float = 0.0  # of the offset's mean square over the latent's variance: an offset as large as the latent is hard to generate
    adversarial: float = 0.01
    adversarial_from: float = 0.5  # progress at which the discriminator joins; it learns before
    offset_dropout: float = 0.3  # fraction of the offset that is missing, in cells or whole pictures
    latent_noise: float = 0.0  # as a fraction of the latent's std: generated latents have some noise left

    def identity_ramp(self, progress: float) -> float:
        """From 0 (the offset may be large) to 1 (the full weight of the identity loss)."""
        start, end = self.identity_rises
        return min(1.0, max(0.0, (progress - start) / max(1e-9, end - start)))


class TransparencyObjective(Objective):
    """Trains an offset encoder and a transparency decoder against a frozen autoencoder, or the decoder alone if the encoder is frozen.

    The encoder is trained for a scale of 1 and converted to OFFSET_SCALE when it is saved: otherwise the optimiser's steps would be 300
    times as large.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        encoder: OffsetEncoder,
        decoder: TransparentDecoder,
        pictures: Pictures,
        settings: TransparencySettings,
    ):
        super().__init__()
        self.autoencoder = autoencoder.requires_grad_(False).eval()
        self.encoder = encoder
        self.decoder = decoder
        self.discriminator = PatchDiscriminator(32) if settings.adversarial else None
        self.pictures = pictures
        self.settings = settings
        self.alpha_first = alpha_first(encoder.latent_channels)
        self._last: tuple[Tensor, Tensor] | None = None  # real and estimated pictures of this step, for the discriminator's turn

    def players(self) -> dict[str, list[nn.Parameter]]:
        both = [*self.encoder.parameters(), *self.decoder.parameters()]
        players = {"": [parameter for parameter in both if parameter.requires_grad]}
        return players if self.discriminator is None else players | {"discriminator": list(self.discriminator.parameters())}

    def forward(self, draws: Draws, player: str = "") -> dict[str, Tensor]:
        return self._discriminate() if player else self._estimate(draws)

    def _estimate(self, draws: Draws) -> dict[str, Tensor]:
        settings = self.settings
        rgba, draws = self.pictures(draws)
        rgba = rgba.to(next(self.parameters()).device)
        alpha, bled = rgba[:, 3:], bleed(rgba)
        with torch.no_grad():
            mean, std = self.autoencoder.posterior(on_grey(rgba) * 2 - 1)
        offset = std * raw_offset(self.encoder, alpha, bled).float()
        latent = mean + offset * offset_mask(offset, settings.offset_dropout * settings.identity_ramp(draws.progress), draws)
        if settings.latent_noise:
            noise = draws.normal(draws.batch, *latent.shape[1:])[draws.rows].to(latent)
            latent = latent + noise * (settings.latent_noise * mean.std())

        picture = self.autoencoder.decode(latent).float() / 2 + 0.5
        identity = picture_loss(picture, on_grey(rgba))
        estimate = self.decoder(picture.clamp(0, 1), latent).float()
        found, colour = (estimate[:, :1], estimate[:, 1:]) if self.alpha_first else (estimate[:, 3:], estimate[:, :3])
        reconstruction = settings.alpha * picture_loss(found, alpha) + picture_loss(colour, bled, weight=alpha + HIDDEN_COLOUR)

        weight = settings.identity * max(IDENTITY_START, settings.identity_ramp(draws.progress))
        size = offset.square().mean() / mean.var()
        total = settings.reconstruction * reconstruction + weight * identity + settings.size * size
        alpha_error = (found.clamp(0, 1) - alpha).abs().mean()
        losses = {"reconstruction": reconstruction, "identity": identity, "size": size, "alpha_error": alpha_error}
        if self.discriminator is not None:
            real, fake = torch.cat([bled, alpha], dim=1), torch.cat([colour, found], dim=1)
            self._last = real, fake.detach()
            if draws.progress >= settings.adversarial_from:
                # The discriminator's own gradient from this turn is thrown away: only its inputs matter here.
                for parameter in self.discriminator.parameters():
                    parameter.requires_grad_(False)
                losses["adversarial"] = -self.discriminator(fake).float().mean()
                for parameter in self.discriminator.parameters():
                    parameter.requires_grad_(True)
                total = total + settings.adversarial * losses["adversarial"]
        return losses | {"total": total}

    def _discriminate(self) -> dict[str, Tensor]:
        assert self.discriminator is not None and self._last is not None
        real, fake = self._last
        return {"total": discriminator_loss(self.discriminator(real).float(), self.discriminator(fake).float())}

    def encoder_weights(self) -> dict[str, Tensor]:
        """The offset encoder's weights for the nodes' scale."""
        return scaled(self.encoder.state_dict(), 1 / OFFSET_SCALE)


def new_encoder(channels: tuple[int, ...]) -> OffsetEncoder:
    """An offset encoder whose offset is large at the start; `channels`: channels before the first and after each convolution.

    It has no norms: with torch's own initialisation the signal shrinks from layer to layer until only the biases are left, and an offset
    that is the same everywhere holds no alpha.
    """
    encoder = OffsetEncoder(channels)
    convolutions = [part for part in encoder.blocks if isinstance(part, nn.Conv2d)]
    for convolution in convolutions:
        gain = LAST_GAIN if convolution is convolutions[-1] else GAIN
        nn.init.normal_(convolution.weight, std=gain * convolution.weight[0].numel() ** -0.5)
        nn.init.zeros_(cast(Tensor, convolution.bias))
    return encoder


def new_decoder(channels: tuple[int, ...], attention: tuple[bool, ...], latent_channels: int) -> TransparentDecoder:
    """A transparency decoder in the released layout."""
    layout = DecoderLayout(channels, attention, resnets=2, pixel_channels=3, latent_channels=latent_channels, out_channels=4)
    return TransparentDecoder(layout)


def scaled(weights: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
    """Weights of an offset encoder whose offset is `factor` times as large."""
    last = max(int(key.split(".")[1]) for key in weights)
    return {**weights, **{f"blocks.{last}.{name}": weights[f"blocks.{last}.{name}"] * factor for name in ("weight", "bias")}}


def raw_offset(encoder: OffsetEncoder, alpha: Tensor, bled: Tensor) -> Tensor:
    """The offset of pictures, alpha [B, 1, H, W] and bled colour [B, 3, H, W], before any scale: [B, C, H/8, W/8]."""
    return encoder(torch.cat([alpha, bled] if alpha_first(encoder.latent_channels) else [bled, alpha], dim=1))


def on_grey(rgba: Tensor) -> Tensor:
    """[B, 4, H, W] -> [B, 3, H, W]: what the autoencoder sees (docs/facts.md section 4)."""
    return straight.on_grey(rgba.movedim(1, -1)).movedim(-1, 1)


def bleed(rgba: Tensor) -> Tensor:
    """[B, 4, H, W] -> [B, 3, H, W], colour carried under the transparent parts."""
    return bleed_rgb(rgba.movedim(1, -1)).movedim(-1, 1)


def offset_mask(offset: Tensor, dropout: float, draws: Draws) -> Tensor:
    """Where the offset is kept (1) or dropped (0): [B, 1, h, w], or [1] without dropout. Half of the drops are cells, half pictures."""
    if not dropout:
        return offset.new_ones(1)
    cells = (draws.uniform(draws.batch, 1, *offset.shape[2:]) >= dropout / 2)[draws.rows]
    whole = (draws.uniform(draws.batch, 1, 1, 1) >= dropout / 2)[draws.rows]
    return (cells & whole).to(offset)
