"""A transparent picture through an upscaling model: bled colour and alpha apart, recombined."""

from __future__ import annotations

from typing import Any

import comfy.model_management as memory
import comfy.utils
import torch
from torch import Tensor

from ...errors import DiaphaneError
from ...pixels.repair import keep_extremes
from .codec import bleed
from .managed_network import ran_out_of_memory

TILE = 512
LEAST_TILE = 128
OVERLAP = 32
# What the host reckons for these models: bytes of working memory for each byte of a tile, times the scale.
WORK = 384.0


def upscale_rgba(model: Any, rgba: Tensor) -> Tensor:
    """[B, H, W, 4] straight -> [B, H * scale, W * scale, 4].

    The model sees opaque pictures only: colour carried on under transparent pixels, and alpha as a grey picture.
    """
    colour = upscale(model, bleed(rgba))
    alpha = upscale(model, rgba[..., 3:4].expand(-1, -1, -1, 3)).mean(dim=-1)
    alpha = keep_extremes(alpha, rgba[..., 3].to(alpha))
    return torch.cat((colour, alpha[..., None]), dim=-1)


def upscale(model: Any, image: Tensor) -> Tensor:
    """[B, H, W, 3] -> [B, H * scale, W * scale, 3] in [0, 1], tile by tile, in smaller tiles if memory runs out."""
    _check_channels(model)
    device = _load(model, image)
    pixels = image.movedim(-1, 1)  # BHWC -> BCHW
    tile = TILE
    output_device: Any = memory.intermediate_device()
    result: list[Tensor] = []

    def enlarge(part: Tensor) -> Tensor:
        # These models are plain torch: no layer of the host's looks whether the artist has had enough.
        memory.throw_exception_if_processing_interrupted()
        return model(part.to(device).float())

    def run() -> None:
        steps = len(pixels) * comfy.utils.get_tiled_scale_steps(pixels.shape[3], pixels.shape[2], tile_x=tile, tile_y=tile, overlap=OVERLAP)
        result[:] = [
            comfy.utils.tiled_scale(
                pixels,
                enlarge,
                tile_x=tile,
                tile_y=tile,
                overlap=OVERLAP,
                upscale_amount=model.scale,
                pbar=comfy.utils.ProgressBar(steps),
                output_device=output_device,
            )
        ]

    try:
        while tile > LEAST_TILE and ran_out_of_memory(run):
            memory.soft_empty_cache()
            tile //= 2
        if not result:
            run()
    finally:
        _unload(model)
    return result[0].movedim(1, -1).clamp(0.0, 1.0)


def _check_channels(model: Any) -> None:
    """Some models that the host loads are for grey pictures, or for transparent ones as they see them."""
    channels = {getattr(model, name, 3) for name in ("input_channels", "output_channels")} - {3}
    if channels:
        raise DiaphaneError(
            f"Upscale Transparent needs a model for RGB pictures of 3 channels, got one for {channels.pop()} channel(s). "
            "Load another upscaling model."
        )


def _load(model: Any, image: Tensor) -> torch.device:
    """Bring the model to its device, memory being made for a tile; hosts before 0.30 give it no patcher."""
    required = TILE * TILE * 3 * image.element_size() * max(model.scale, 1.0) * WORK + image.nelement() * image.element_size()
    patcher = getattr(model, "patcher", None)
    if patcher is not None:
        device = patcher.load_device
        memory.load_models_gpu([patcher], memory_required=required, force_full_load=True)
    else:
        device = memory.get_torch_device()
        memory.free_memory(memory.module_size(model.model) + required, device)
    # These models are not built from the host's layers, which would fetch the weights that dynamic VRAM leaves where they are.
    model.to(device)
    return device


def _unload(model: Any) -> None:
    if getattr(model, "patcher", None) is None:
        model.to("cpu")
