"""Which of the supported families a model, a VAE or a latent belongs to."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import comfy.supported_models as supported
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE

from ...errors import DiaphaneError
from ...weights.catalogue import Family
from ..layers import layers_in
from .weight_files import AUTO, own_weights

logger = logging.getLogger("diaphane")

FAMILY_CHOICES = [AUTO, Family.SDXL.value, Family.SD15.value, Family.FLUX.value]
FLUX_LATENT_CHANNELS = 16
FAMILY_IS_GUESSED = "set family to SD1.5 if the model is one (auto took SDXL)"

# Models of newer ComfyUIs whose own VAE decodes to alpha.
NATIVE_ALPHA = ("QwenImage21",)
LAYERED = "use_additional_t_cond"  # what sets Qwen-Image-Layered apart from Qwen-Image

_CONFIGS = {Family.SD15: supported.SD15, Family.SDXL: supported.SDXL, Family.FLUX: supported.Flux}


def family_of(model: ModelPatcher) -> Family | None:
    """The family of a loaded diffusion model, None for any other architecture."""
    config = model.model.model_config
    if isinstance(config, supported.Flux2):  # a subclass of Flux in ComfyUI, but another architecture
        return None
    return next((family for family, config_class in _CONFIGS.items() if isinstance(config, config_class)), None)


def require_family(model: ModelPatcher, node: str, ways_out: Mapping[Family, str | None]) -> Family:
    """The model's family, if `node` can work with it.

    ways_out: {family: None} for those that it can work with, {family: "Use …."} for those that have another node.
    Raises DiaphaneError for any other model.
    """
    family = family_of(model)
    if family is not None and ways_out.get(family, "") is None:
        return family
    needed = " or ".join(known for known, way_out in ways_out.items() if way_out is None)
    got = family if family is not None else type(model.model.model_config).__name__
    way_out = (family and ways_out.get(family)) or "Load another checkpoint."
    if got in NATIVE_ALPHA or model.model.model_config.unet_config.get(LAYERED):
        way_out = "That model makes transparent pictures by itself: use it without this node and decode with VAE Decode."
    raise DiaphaneError(f"{node} needs an {needed} model, got {got}. {way_out}")


def require_vae(vae: VAE, node: str) -> None:
    """Raises DiaphaneError unless the VAE is of a kind that LayerDiffuse knows: pictures, one eighth, 4 or 16 channels."""
    vae.throw_exception_if_invalid()
    if 4 in (vae.output_channels, getattr(vae, "conv_out_channels", None)):
        raise DiaphaneError(
            f"{node} got a VAE whose pictures have alpha by themselves (4 channels). Use VAE Decode and VAE Encode, "
            "which keep it, and the model without a LayerDiffuse patch."
        )
    if vae.latent_dim != 2 or vae.latent_channels not in (4, FLUX_LATENT_CHANNELS) or vae.spacial_compression_encode() != 8:
        raise DiaphaneError(
            f"{node} needs the VAE of an SD1.5, SDXL or Flux model, got one with {vae.latent_channels} latent channels "
            f"for {vae.latent_dim} dimensions and a scale of {vae.spacial_compression_encode()}. Connect the VAE of such a model."
        )


def require_vae_of(model: ModelPatcher, vae: VAE, node: str) -> None:
    """Raises DiaphaneError unless the VAE is of a kind that LayerDiffuse knows, and has the latent channels of the model."""
    require_vae(vae, node)
    needed = model.model.latent_format.latent_channels
    if vae.latent_channels != needed:
        raise DiaphaneError(
            f"{node} got a VAE with {vae.latent_channels} latent channels, the model works with {needed}. Connect the VAE of the model."
        )


def latent_family(choice: str, vae: VAE, samples: Mapping[str, Any] | None = None) -> tuple[Family, str | None]:
    """The family whose transparency networks fit, and what to do if alpha is wrong; None if latent or VAE show that the family is right.

    choice: the node's `family`. SD1.5 and SDXL latents look alike; without names of layers, which only SD1.5 has, auto takes SDXL.
    """
    if own_weights(vae) is not None:  # whatever is chosen, no other weights fit
        return Family.SD15, None
    if choice != AUTO:
        return Family(choice), "set family to the model's own"
    if vae.latent_channels == FLUX_LATENT_CHANNELS:
        return Family.FLUX, None
    if layers_in(samples or {}):
        return Family.SD15, None
    logger.info("family is auto and the latent does not say where it comes from: taken as SDXL. Set family to SD1.5 if it is.")
    return Family.SDXL, FAMILY_IS_GUESSED
