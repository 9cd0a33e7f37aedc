"""LATENT to pictures: which rows are transparent, and where their colours come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from comfy.sd import VAE
from torch import Tensor

from ...errors import DiaphaneError
from ...pixels.coverage import coverage
from ...pixels.straight import with_alpha
from ...weights.catalogue import Family
from ..layers import LATENT_SCALE, foreground_rows, layers_in
from ..models.weight_files import AUTO
from .codec import SIZE_KEY, decode_rgba
from .latents import check_latent
from .loading import transparency_decoder

CLEARLY = 0.1  # of a picture is transparent. The mini family: 0.29 or more of what is, none of what is not.


def decode_layers(
    vae: VAE,
    samples: Mapping[str, Any],
    images: Tensor | None = None,
    *,
    family: Family,
    decoder_file: str = AUTO,
    passes: int = 8,
    tile: int = 0,
) -> Tensor:
    """Decode a LATENT to [B, H, W, 4] with straight alpha.

    If the latent names its layers, only the foreground rows are transparent; the others are decoded as opaque pictures.
    images: the same latent decoded elsewhere, perhaps retouched or upscaled, [B, H, W, 3 or 4]; decoded by `vae` if None.
    """
    latent = plain_latent(samples, vae)
    pixels = _as_encoded(vae.decode(latent), samples) if images is None else with_alpha(images)[..., :3]
    if len(pixels) != len(latent):
        raise DiaphaneError(
            f"Got {len(pixels)} images and {len(latent)} latents. Connect the images that were decoded from these very latents, or none."
        )
    rgba = with_alpha(pixels).float()
    if rows := foreground_rows(samples):
        decoder = transparency_decoder(vae, family, decoder_file)
        transparent = decode_rgba(decoder, pixels[rows], latent[rows], passes=passes, tile=tile)
        rgba[torch.tensor(rows)] = transparent.to(rgba.device)
    return rgba


def transparent_layer(vae: VAE, samples: Mapping[str, Any], pictures: Tensor, *, family: Family, decoder_file: str = AUTO) -> str | None:
    """The name of a layer that is decoded as opaque and holds a transparent picture, as when a model was patched for single pictures.

    pictures: [B, H, W, 3 or 4], the LATENT as it was decoded. The first such row is looked at, in one pass.
    """
    layers = layers_in(samples)
    transparent = foreground_rows(samples)
    others = set(range(len(pictures))) - set(transparent)
    if layers is None or not transparent or not others:
        return None
    row = min(others)
    decoder = transparency_decoder(vae, family, decoder_file)
    rgba = decode_rgba(decoder, pictures[row : row + 1, ..., :3], samples["samples"][row : row + 1], passes=1)
    return layers[row % len(layers)] if coverage(rgba).transparent > CLEARLY else None


def plain_latent(samples: Mapping[str, Any], vae: VAE) -> Tensor:
    """The latent of pictures that `vae` can decode. Raises DiaphaneError for any other."""
    wrong = f"The latent has {{}} channels, this VAE decodes {vae.latent_channels}. Connect the VAE of the model that sampled."
    return check_latent(samples["samples"], vae.latent_channels, wrong)


def _as_encoded(pixels: Tensor, samples: Mapping[str, Any]) -> Tensor:
    """Crop to the size that the picture had when it was encoded, if the latent still has that size."""
    height, width = samples.get(SIZE_KEY, pixels.shape[1:3])
    if (-(-height // LATENT_SCALE), -(-width // LATENT_SCALE)) == tuple(samples["samples"].shape[2:]):
        return pixels[:, :height, :width]
    return pixels
