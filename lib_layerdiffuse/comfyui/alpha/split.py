"""A batch of layers taken apart, decoded first if need be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy.sd import VAE
from torch import Tensor

from ...errors import DiaphaneError
from ...pixels.straight import check_picture
from ...weights.catalogue import Family
from ..layers import FOREGROUND, LAYERS_KEY, arrangement, check_whole_sets, layers_in, split_layers
from ..models.families import FLUX_LATENT_CHANNELS
from ..models.weight_files import AUTO
from .alpha_vae import AlphaVAE
from .latents import check_latent_for

NODE = "Split Layers"


def decode_and_split(
    samples: Mapping[str, Any] | None,
    vae: VAE | None,
    images: Tensor | None,
    *,
    layers: str = AUTO,
    passes: int = 8,
    decoder_file: str = AUTO,
) -> tuple[dict[str, Tensor], str | None]:
    """({layer: pictures}, `Decoded.stray`): the foreground [N, H, W, 4] with alpha, the others [N, H, W, 3], for N sets.

    From samples and vae, from images that are decoded already, or from all three (images retouched). layers: "auto" or a choice of
    `layers.CHOICES`. Raises DiaphaneError if something is missing or the batch is not made of whole sets.
    """
    if samples is None and images is None:
        raise DiaphaneError(f"{NODE} got nothing to take apart. Connect samples and vae, or images.")
    names = layers_in(samples or {}) if layers == AUTO else arrangement(layers)
    if names is None:
        raise DiaphaneError(f"{NODE} cannot tell which layers these are. Set layers by hand, or start from Empty Layer Latent.")
    stray = None
    if samples is not None and vae is not None:
        alpha = AlphaVAE.of(vae, NODE, Family.SD15, decoder_file=decoder_file)
        if alpha.vae.latent_channels == FLUX_LATENT_CHANNELS:
            raise DiaphaneError(
                f"{NODE} decodes the layers of SD1.5 models, got a VAE of the Flux kind. Connect the VAE of the SD1.5 model."
            )
        check_whole_sets(len(check_latent_for(alpha.vae, samples["samples"])), names)
        decoded = alpha.decode({**samples, LAYERS_KEY: names}, images, passes=passes)
        images, stray = decoded.rgba, decoded.stray
    elif images is None:
        raise DiaphaneError(f"{NODE} got samples without a vae. Connect the VAE of the model, or images that are decoded already.")
    else:
        check_picture(images)
    found = split_layers(images, names)
    return {name: pictures if name == FOREGROUND else pictures[..., :3] for name, pictures in found.items()}, stray
