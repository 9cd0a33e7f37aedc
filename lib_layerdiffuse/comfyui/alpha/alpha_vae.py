"""One value for a VAE in use with alpha: nodes make it from what is connected to them, then decode and encode with it.

B pictures of C channels; sides are H, W in pixels and h, w in latent cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from comfy.sd import VAE
from torch import Tensor

from ...errors import DiaphaneError
from ...nets.offset_encoder import OFFSET_SCALE, OffsetEncoder
from ...nets.transparent_decoder import TransparentDecoder
from ...pixels.coverage import coverage
from ...pixels.straight import mask_planes, off_grey, with_alpha
from ...weights.catalogue import Family
from ..layers import FOREGROUND, LATENT_SCALE, LAYERS_KEY, foreground_rows, layer_of_each_row
from ..models.families import latent_family, require_vae
from ..models.weight_files import AUTO
from .codec import decode_rgba, encode_rgba, pad_to_multiple
from .latents import check_latent_for
from .loading import offset_encoder, transparency_decoder
from .managed_network import ManagedNetwork
from .transparent_vae import opaque_vae

SIZE_KEY = "pixel_size"  # in a LATENT: height and width of the encoded picture before padding
NETWORK, PICTURE = COLOURS = ("network", "picture")  # what gives a decoded picture its colour: the transparency decoder, the VAE
CLEARLY = 0.1  # of a picture is transparent. The mini family: 0.29 or more of what is, none of what is not.


@dataclass(frozen=True)
class Decoded:
    """The pictures of a LATENT."""

    rgba: Tensor  # [B, H, W, 4] float32 in [0, 1], straight alpha
    foreground: list[int]  # the rows that are decoded with alpha; the others are opaque
    stray: str | None  # the name of a layer that is decoded as opaque and holds a transparent picture


@dataclass(frozen=True)
class AlphaVAE:
    """The ordinary VAE, checked, the family of its latents, and the networks of that family, which are loaded on first use."""

    vae: VAE
    family: Family
    advice: str | None = None  # what to do about the node's family if alpha is wrong, None if the family is certain
    decoder_file: str = AUTO
    encoder_file: str = AUTO

    @classmethod
    def of(
        cls,
        vae: VAE,
        node: str,
        family: str = AUTO,
        samples: Mapping[str, Any] | None = None,
        *,
        decoder_file: str = AUTO,
        encoder_file: str = AUTO,
    ) -> AlphaVAE:
        """What is connected to a node: a VAE, transparent or not, its combo `family`, and a LATENT that may say which family it is of.

        Raises DiaphaneError, with the node's name, for VAEs that LayerDiffuse does not know.
        """
        opaque = opaque_vae(vae)
        require_vae(opaque, node)
        return cls(opaque, *latent_family(family, opaque, samples), decoder_file, encoder_file)

    @property
    def decoder(self) -> ManagedNetwork[TransparentDecoder]:
        return transparency_decoder(self.vae, self.family, self.decoder_file)

    @property
    def encoder(self) -> ManagedNetwork[OffsetEncoder]:
        return offset_encoder(self.vae, self.family, self.encoder_file)

    def decode(
        self, samples: Mapping[str, Any], images: Tensor | None = None, *, passes: int = 8, tile: int = 0, colour: str = NETWORK
    ) -> Decoded:
        """Decode a LATENT [B, C, h, w] of any dtype and device.

        If it names its layers, only the foreground rows are transparent; the others are decoded as opaque pictures.
        images: the same latent decoded elsewhere, perhaps retouched or upscaled, [B, H, W, 3 or 4]; decoded by the VAE if None.
        colour: one of COLOURS.
        """
        latent = check_latent_for(self.vae, samples["samples"])
        rgba = with_alpha(_as_encoded(self.vae.decode(latent), samples) if images is None else images)
        if len(rgba) != len(latent):
            raise DiaphaneError(
                f"Got {len(rgba)} images and {len(latent)} latents. Connect the images that were decoded from these very latents, or none."
            )
        rgba[..., 3] = 1.0
        rows = foreground_rows(samples)
        if not rows:
            return Decoded(rgba, rows, None)
        estimate = decode_rgba(self.decoder, rgba[rows], latent[rows], passes=passes, tile=tile).to(rgba)
        rgba[rows] = off_grey(rgba[rows, ..., :3], estimate) if colour == PICTURE else estimate
        return Decoded(rgba, rows, self._stray_layer(samples, rgba))

    def encode(self, rgba: Tensor, *, offset_scale: float = OFFSET_SCALE) -> dict[str, Any]:
        """A LATENT of pictures [B, H, W, 4] in [0, 1] of any size, straight alpha: padded to whole latent cells.

        It holds what the decoder uses: the size before padding and, for SD1.5, the name of the layer, which tells its latents from those
        of SDXL.
        """
        padded = pad_to_multiple(rgba.movedim(-1, 1), LATENT_SCALE).movedim(1, -1)
        samples = encode_rgba(self.vae, self.encoder, padded, offset_scale=offset_scale)
        latent = {"samples": samples, SIZE_KEY: tuple(rgba.shape[1:3])}
        return latent | {LAYERS_KEY: (FOREGROUND,)} if self.family is Family.SD15 else latent

    def empty(self, height: int, width: int, count: int, area: Tensor | None = None) -> dict[str, Any]:
        """A LATENT of fully transparent pictures of any size.

        area: mask [1 or count, h, w], 1 = where a sampler may paint, or nothing painted for anywhere; it becomes ComfyUI's noise mask.
        """
        latent = self.encode(torch.zeros(1, height, width, 4))
        latent["samples"] = latent["samples"].repeat(count, 1, 1, 1)
        if area is None:
            return latent
        mask = mask_planes(area)
        if len(mask) not in (1, count):
            raise DiaphaneError(f"Got {len(mask)} areas for a batch of {count}. Connect one area, or as many as batch_size says.")
        return latent | {"noise_mask": mask} if mask.any() else latent

    def _stray_layer(self, samples: Mapping[str, Any], rgba: Tensor) -> str | None:
        """The opaque layer that holds a transparent picture, as when a model was patched for single pictures.

        The first opaque row is looked at, in one pass.
        """
        layers = layer_of_each_row(samples)
        row = next((row for row, layer in enumerate(layers) if layer != FOREGROUND), None)
        if row is None:
            return None
        estimate = decode_rgba(self.decoder, rgba[row : row + 1], samples["samples"][row : row + 1], passes=1)
        return layers[row] if coverage(estimate).transparent > CLEARLY else None


def _as_encoded(pixels: Tensor, samples: Mapping[str, Any]) -> Tensor:
    """Crop to the size that the picture had when it was encoded, if the latent still has that size."""
    height, width = samples.get(SIZE_KEY, pixels.shape[1:3])
    if (-(-height // LATENT_SCALE), -(-width // LATENT_SCALE)) == tuple(samples["samples"].shape[2:]):
        return pixels[:, :height, :width]
    return pixels
