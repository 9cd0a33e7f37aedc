"""A VAE that can be understood: encode is 8x8 average pooling, decode is 8x8 nearest upsampling.

ComfyUI's own autoencoder classes with weights set by hand. Pixels keep their meaning, so that what comes out of a
workflow is recognisable, and a latent survives decode -> encode exactly wherever nothing was clipped.
"""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL, AutoencodingEngine
from torch import Tensor

from .models import CLASSES
from .seeded import seeded_noise

WIDTH = 32  # the least that the host's 32-group norms allow
LOG_VARIANCE = -12.0

_MODULE = "comfy.ldm.modules.diffusionmodules.model"


def network_config(channels: int, width: int = WIDTH, multiples: tuple[int, ...] = (1, 1, 1, 1), blocks: int = 0) -> dict[str, Any]:
    """What ComfyUI's encoder and decoder are made from, for so many latent channels."""
    return {
        "double_z": True,
        "z_channels": channels,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": width,
        "ch_mult": list(multiples),
        "num_res_blocks": blocks,
        "attn_resolutions": [],
        "dropout": 0.0,
    }


def build_vae(family: str, seed: int) -> comfy.sd.VAE:
    """The stand-in VAE of a family. As in the real ones, only Flux's has no quant_conv."""
    latent_format = CLASSES[family].latent_format()
    channels = latent_format.latent_channels
    network = network_config(channels)
    params = {"ddconfig": network, "embed_dim": channels}
    weights = _weights(AutoencoderKL(**params).state_dict(), channels, latent_format.scale_factor, seed)
    vae = comfy.sd.VAE(sd=weights, config={"params": params})
    vae.latent_channels = channels
    model: Any = vae.first_stage_model
    if family == "Flux":
        model = AutoencodingEngine(
            encoder_config={"target": f"{_MODULE}.Encoder", "params": network},
            decoder_config={"target": f"{_MODULE}.Decoder", "params": network},
            regularizer_config={"target": "comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer"},
        )
        model.load_state_dict({k: v for k, v in weights.items() if "quant_conv" not in k})
        vae.first_stage_model = model.eval().to(vae.vae_dtype)
        comfy.model_management.archive_model_dtypes(model)
        vae.patcher = comfy.model_patcher.CoreModelPatcher(model, load_device=vae.device, offload_device=vae.patcher.offload_device)
    # A norm over the whole picture would take its brightness and contrast away.
    for half in (model.encoder, model.decoder):
        half.norm_out = torch.nn.Identity()
    return vae


def _weights(like: dict[str, Tensor], channels: int, scale: float, seed: int) -> dict[str, Tensor]:
    """Residual branches are zero; colour travels as the pair (x, -x), since silu(x) - silu(-x) = x."""
    weights = {key: torch.zeros(tensor.shape) for key, tensor in like.items()}
    pair = torch.cat([torch.eye(3), -torch.eye(3)])
    mix = torch.linalg.qr(seeded_noise("vae.mix", (channels, 3), seed)).Q
    # A picture's latent then has about unit variance once the host has scaled it.
    mix_in, mix_out = mix * 2 * (channels / 3) ** 0.5 / scale, mix.T / (2 * (channels / 3) ** 0.5 / scale)

    weights["encoder.conv_in.weight"][:6, :, 1, 1] = pair
    weights["encoder.conv_out.weight"][:channels, :6, 1, 1] = mix_in @ pair.T
    weights["encoder.conv_out.bias"][channels:] = LOG_VARIANCE
    weights["decoder.conv_in.weight"][:6, :, 1, 1] = pair @ mix_out
    weights["decoder.conv_out.weight"][:, :6, 1, 1] = pair.T
    for n in range(3):
        weights[f"encoder.down.{n}.downsample.conv.weight"][:6, :6, :2, :2] = torch.eye(6)[:, :, None, None] / 4
        weights[f"decoder.up.{n + 1}.upsample.conv.weight"][:6, :6, 1, 1] = torch.eye(6)
    for name in ("quant_conv.weight", "post_quant_conv.weight"):
        weights[name][:, :, 0, 0] = torch.eye(weights[name].shape[0])
    return weights
