"""Full-size diffusion models with random weights, in ComfyUI."""

# ComfyUI is not typed, and only there once it has been imported.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

from typing import Any

import torch

from dev.full_size import RELEASED, configured
from dev.stand_ins.seeded import seeded_weight
from dev.stand_ins.shapes import table
from dev.stand_ins.weights import released


def random_model(family: str, device: torch.device, dtype: torch.dtype, compute_dtype: torch.dtype | None = None) -> Any:
    """A ModelPatcher of the family "SD1.5" or "SDXL" with weights of `dtype`. Needs ComfyUI in this process."""
    from comfy.model_patcher import CoreModelPatcher

    model = configured(family, dtype, None if compute_dtype == dtype else compute_dtype).get_model({}, "", device=device)
    with torch.no_grad():
        for parameter in model.diffusion_model.parameters():
            parameter.normal_(std=0.02)
    return CoreModelPatcher(model, load_device=device, offload_device=device)


def random_alpha_vae() -> Any:
    """An `AlphaVAE` of SD1.5, on the device that ComfyUI gives VAEs. Needs ComfyUI in this process."""
    import comfy.sd
    from comfy.ldm.models.autoencoder import AutoencoderKL

    from dev.stand_ins.vae import network_config
    from lib_layerdiffuse.comfyui.alpha.alpha_vae import AlphaVAE
    from lib_layerdiffuse.comfyui.alpha.managed_network import ManagedNetwork
    from lib_layerdiffuse.nets.offset_encoder import OffsetEncoder
    from lib_layerdiffuse.nets.transparent_decoder import TransparentDecoder
    from lib_layerdiffuse.weights.catalogue import Family

    params = {"ddconfig": network_config(4, width=128, multiples=(1, 2, 4, 4), blocks=2), "embed_dim": 4}
    weights = {key: seeded_weight(key, tuple(tensor.shape)) for key, tensor in AutoencoderKL(**params).state_dict().items()}
    vae = comfy.sd.VAE(sd=weights, config={"params": params})
    prefix = RELEASED["SD1.5"][1]

    class RandomAlphaVAE(AlphaVAE):
        decoder: Any = ManagedNetwork(
            TransparentDecoder, released(f"{prefix}vae_transparent_decoder", table("facts/transparent_decoder")), vae.patcher
        )
        encoder: Any = ManagedNetwork(
            OffsetEncoder, released(f"{prefix}vae_transparent_encoder", table("facts/offset_encoder")), vae.patcher
        )

    return RandomAlphaVAE(vae, Family.SD15)
