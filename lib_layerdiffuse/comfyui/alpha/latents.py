"""What a LATENT has to be for pictures to come out of it."""

from __future__ import annotations

from typing import Any

from comfy.sd import VAE
from torch import Tensor

from ...errors import DiaphaneError


def check_latent_for(vae: VAE, latent: Any) -> Tensor:
    """The latent, if it is one of pictures that `vae` decodes; else raises DiaphaneError."""
    wrong = f"The latent has {{}} channels, this VAE decodes {vae.latent_channels}. Connect the VAE of the model that sampled."
    return check_latent(latent, vae.latent_channels, wrong)


def check_latent(latent: Any, channels: int, wrong_channels: str) -> Tensor:
    """The latent, if it is [B, channels, h, w] with something in it and finite; else raises DiaphaneError.

    wrong_channels: what to say of another number of channels, with {} in its place.
    """
    if latent.is_nested or latent.ndim != 4:
        raise DiaphaneError(
            f"Transparency needs latents of pictures [B, C, h, w], got {'several' if latent.is_nested else f'{latent.ndim} dimensions'}. "
            "Video and audio latents have no transparency."
        )
    if latent.shape[1] != channels:
        raise DiaphaneError(wrong_channels.format(latent.shape[1]))
    if latent.numel() == 0:
        raise DiaphaneError(f"Got an empty latent, {list(latent.shape)}. Check the node before: it cropped or filtered everything away.")
    if not latent.isfinite().all():
        raise DiaphaneError(
            "Got a latent that is not all numbers (NaN or infinite). The sampling before it failed: lower cfg, or the weight of patches, "
            "or start ComfyUI with --force-upcast-attention."
        )
    return latent
