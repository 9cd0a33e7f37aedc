"""Mean and standard deviation of an ordinary VAE's latent distribution; ComfyUI's own encode gives the mean alone."""

from __future__ import annotations

from typing import Any

import comfy.utils
import torch
from comfy.sd import VAE
from torch import Tensor

from ...errors import DiaphaneError

LOG_VARIANCE_RANGE = (-30.0, 20.0)  # as the VAEs were trained


def encode_posterior(vae: VAE, pixels: Tensor, *, tile: int = 0) -> tuple[Tensor, Tensor]:
    """pixels [B, H, W, 3] in [0, 1], H and W multiples of 8 -> mean and standard deviation [B, C, H/8, W/8].

    Both are in raw VAE space, of the dtype and on the device of what `vae.encode` gives.
    tile: side of the tiles in pixels, 0 = whole (ComfyUI falls back to tiles when memory runs out).
    """
    regularization = getattr(vae.first_stage_model, "regularization", None)
    if regularization is None:
        raise DiaphaneError(
            f"Transparent pictures need a full VAE to be encoded, got {type(vae.first_stage_model).__name__}, "
            "which has no latent distribution. Use the checkpoint's own VAE instead of a preview one."
        )
    log_variances: list[Tensor] = []

    def remember(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        log_variances.append(args[0].chunk(2, dim=1)[1])

    handle = regularization.register_forward_pre_hook(remember)
    try:
        mean = vae.encode_tiled(pixels, tile_x=tile, tile_y=tile, overlap=tile // 8) if tile else vae.encode(pixels)
        if sum(len(v) for v in log_variances) == len(mean) and all(v.shape[1:] == mean.shape[1:] for v in log_variances):
            log_variance = torch.cat(log_variances).to(mean)
        else:  # ComfyUI encoded in tiles, which overlap: encode once more for the log variance, blended as the mean is
            log_variance = _tiled_log_variance(vae, pixels, tile or 512, log_variances).to(mean)
    finally:
        handle.remove()
    return mean, torch.exp(0.5 * log_variance.clamp(*LOG_VARIANCE_RANGE))


def _tiled_log_variance(vae: Any, pixels: Tensor, tile: int, log_variances: list[Tensor]) -> Tensor:
    """[B, H, W, 3] -> [B, C, H/8, W/8]; each encoding appends to `log_variances`."""

    def run(part: Tensor) -> Tensor:
        log_variances.clear()
        vae.first_stage_model.encode(vae.process_input(part).to(device=vae.device, dtype=vae.vae_dtype))
        return log_variances[0].float()

    return comfy.utils.tiled_scale(
        pixels.movedim(-1, 1),
        run,
        tile_x=tile,
        tile_y=tile,
        overlap=tile // 8,
        upscale_amount=1 / vae.spacial_compression_encode(),
        out_channels=vae.latent_channels,
        output_device=vae.output_device,
    )
