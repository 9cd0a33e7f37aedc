"""A batch of layers taken apart, decoded first if need be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from comfy.sd import VAE
from torch import Tensor

from ...errors import DiaphaneError
from ...pixels.straight import check_picture
from ...weights.catalogue import Family
from ..layers import FOREGROUND, LAYERS_KEY, arrangement, check_whole_sets, layers_in, split_layers
from ..models.families import AUTO, FLUX_LATENT_CHANNELS, require_vae
from .decode_layers import decode_layers, plain_latent, transparent_layer

NODE = "Split Layers"


def decode_and_split(
    samples: Mapping[str, Any] | None,
    vae: VAE | None,
    images: Tensor | None,
    *,
    layers: str = AUTO,
    passes: int = 8,
    decoder_file: str = AUTO,
) -> dict[str, Tensor]:
    """{layer: pictures}, the foreground [N, H, W, 4] with alpha, the others [N, H, W, 3].

    From samples and vae, from images that are decoded already, or from all three (images retouched). layers: "auto" or a choice of
    `layers.CHOICES`. Raises DiaphaneError if something is missing or the batch is not made of whole sets.
    """
    if samples is None and images is None:
        raise DiaphaneError(f"{NODE} got nothing to take apart. Connect samples and vae, or images.")
    names = layers_in(samples or {}) if layers == AUTO else arrangement(layers)
    if names is None:
        raise DiaphaneError(f"{NODE} cannot tell which layers these are. Set layers by hand, or start from Empty Layer Latent.")
    if samples is not None and vae is not None:
        _require_sd15(vae)
        check_whole_sets(len(plain_latent(samples, vae)), names)
        named = {**samples, LAYERS_KEY: names}
        images = decode_layers(vae, named, images, family=Family.SD15, decoder_file=decoder_file, passes=passes)
    elif images is None:
        raise DiaphaneError(f"{NODE} got samples without a vae. Connect the VAE of the model, or images that are decoded already.")
    else:
        check_picture(images)
    return {name: picture if name == FOREGROUND else picture[..., :3] for name, picture in split_layers(images, names).items()}


def transparent_layer_of(samples: Mapping[str, Any], vae: VAE, found: Mapping[str, Tensor], *, decoder_file: str = AUTO) -> str | None:
    """`decode.transparent_layer` of the first set of layers that `decode_and_split` has found."""
    first = {"samples": samples["samples"][: len(found)], LAYERS_KEY: tuple(found)}
    pictures = torch.cat([picture[:1, ..., :3] for picture in found.values()])
    return transparent_layer(vae, first, pictures, family=Family.SD15, decoder_file=decoder_file)


def _require_sd15(vae: VAE) -> None:
    require_vae(vae, NODE)
    if vae.latent_channels == FLUX_LATENT_CHANNELS:
        raise DiaphaneError(f"{NODE} decodes the layers of SD1.5 models, got a VAE of the Flux kind. Connect the VAE of the SD1.5 model.")
