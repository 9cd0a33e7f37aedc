"""Checkpoints of SD1.5 and SDXL as ComfyUI loads them, taken apart into what the stages train or train against."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from .data.latents import SD15_SCALE, SDXL_SCALE
from .models.autoencoder import Autoencoder
from .models.sdxl_text import SDXLText, load_sdxl_text
from .models.text_encoder import TextEncoder
from .models.unet import UNet

UNET = "model.diffusion_model."
VAE = "first_stage_model."
SD15_TEXT = "cond_stage_model.transformer."
SDXL_SMALL_TEXT = "conditioner.embedders.0.transformer."
SDXL_LARGE_TEXT = "conditioner.embedders.1.model."


def read_part(path: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors under a prefix, float32, without the prefix. Raises ValueError if there are none or it is no safetensors file."""
    if path.suffix != ".safetensors":
        raise ValueError(f"{path.name} is not a safetensors file. Convert it, or take the safetensors version of the checkpoint.")
    with safe_open(path, "pt") as file:
        weights = {key.removeprefix(prefix): file.get_tensor(key).float() for key in file.keys() if key.startswith(prefix)}  # noqa: SIM118
    if not weights:
        raise ValueError(f"{path.name} has no {prefix}… tensors. Give a whole checkpoint, as ComfyUI's Load Checkpoint takes it.")
    return weights


def load_autoencoder(path: Path) -> Autoencoder:
    """The VAE of a checkpoint, or of a file that holds nothing else (models/vae)."""
    with safe_open(path, "pt") as file:
        prefix = "" if "encoder.conv_in.weight" in file.keys() else VAE  # noqa: SIM118
    return Autoencoder.from_state_dict(_used(read_part(path, prefix), ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")))


def load_unet(path: Path) -> UNet:
    return UNet.from_state_dict(read_part(path, UNET))


def load_text_encoder(path: Path, unet: UNet, side: int) -> TextEncoder | SDXLText:
    """What turns tokens into the conditioning of a checkpoint's UNet; side: of the training pictures, which SDXL is conditioned on."""
    if unet.layout.vector_dim:
        return load_sdxl_text(read_part(path, SDXL_SMALL_TEXT), read_part(path, SDXL_LARGE_TEXT), side)
    weights = read_part(path, SD15_TEXT)
    return TextEncoder.from_state_dict(weights if "text_model.final_layer_norm.weight" in weights else _prefixed(weights))


def latent_scale(unet: UNet) -> float:
    return SDXL_SCALE if unet.layout.vector_dim else SD15_SCALE


def _used(weights: Mapping[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Without what some files carry beside the network, such as averages and losses."""
    return {key: tensor for key, tensor in weights.items() if key.startswith(prefixes)}


def _prefixed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"text_model.{key}": tensor for key, tensor in weights.items()}
