"""A transparent picture through an upscaling model: bled colour and alpha separately, then put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_management as memory
import comfy.utils
import torch
from torch import Tensor

from ...errors import DiaphaneError
from ...pixels.repair import keep_extremes
from .attempts import raise_non_oom
from .codec import bleed

TILES, LEAST_TILE = (512, 256), 128
OVERLAP = 32
# ComfyUI's own estimate for these models: bytes of working memory for each byte of a tile, times the scale.
WORK = 384.0


def upscale_rgba(model: Any, rgba: Tensor) -> Tensor:
    """[B, H, W, 4] in [0, 1], straight alpha -> [B, H * scale, W * scale, 4], float32 on ComfyUI's intermediate device.

    The model gets opaque pictures only: colour, bled under transparent pixels, and alpha as a grey picture.
    """
    colour = upscale(model, bleed(rgba))
    alpha = upscale(model, rgba[..., 3:4].expand(-1, -1, -1, 3)).mean(dim=-1)
    alpha = keep_extremes(alpha, rgba[..., 3].to(alpha))
    return torch.cat((colour, alpha[..., None]), dim=-1)


def upscale(model: Any, image: Tensor) -> Tensor:
    """[B, H, W, 3] -> [B, H * scale, W * scale, 3] in [0, 1], on ComfyUI's intermediate device; in smaller tiles if memory runs out."""
    _check_channels(model)
    device = _load(model, image)
    pixels = image.movedim(-1, 1)  # BHWC -> BCHW

    def enlarge(part: Tensor) -> Tensor:
        # These models are plain torch: none of their layers looks for a click on Cancel, as ComfyUI's do.
        memory.throw_exception_if_processing_interrupted()
        return model(part.to(device).float())

    try:
        for tile in TILES:
            try:
                return _tiled(enlarge, pixels, tile, model.scale)
            except Exception as error:
                raise_non_oom(error)
            memory.soft_empty_cache()
        return _tiled(enlarge, pixels, LEAST_TILE, model.scale)
    finally:
        _unload(model)


def _tiled(enlarge: Callable[[Tensor], Tensor], pixels: Tensor, tile: int, scale: float) -> Tensor:
    """[B, 3, H, W] -> [B, H * scale, W * scale, 3] in [0, 1]"""
    steps = len(pixels) * comfy.utils.get_tiled_scale_steps(pixels.shape[3], pixels.shape[2], tile_x=tile, tile_y=tile, overlap=OVERLAP)
    output_device: Any = memory.intermediate_device()
    upscale_amount: Any = scale  # an int, by ComfyUI's annotation
    enlarged = comfy.utils.tiled_scale(
        pixels,
        enlarge,
        tile_x=tile,
        tile_y=tile,
        overlap=OVERLAP,
        upscale_amount=upscale_amount,
        pbar=comfy.utils.ProgressBar(steps),
        output_device=output_device,
    )
    return enlarged.movedim(1, -1).clamp(0.0, 1.0)  # BCHW -> BHWC


def _check_channels(model: Any) -> None:
    """Raises DiaphaneError for models of grey pictures, and for those which take transparent ones."""
    channels = {getattr(model, name, 3) for name in ("input_channels", "output_channels")} - {3}
    if channels:
        raise DiaphaneError(
            f"Upscale Transparent needs a model for RGB pictures of 3 channels, got one for {channels.pop()} channel(s). "
            "Load another upscaling model."
        )


def _load(model: Any, image: Tensor) -> torch.device:
    """Move the model to its device, after memory was made free for a tile; ComfyUI before 0.30 gives it no patcher."""
    required = TILES[0] ** 2 * 3 * image.element_size() * max(model.scale, 1.0) * WORK + image.nelement() * image.element_size()
    patcher = getattr(model, "patcher", None)
    if patcher is not None:
        device = patcher.load_device
        memory.load_models_gpu([patcher], memory_required=required, force_full_load=True)
    else:
        device = memory.get_torch_device()
        memory.free_memory(memory.module_size(model.model) + required, device)
    # These models are not built from ComfyUI's layers, which would fetch the weights that dynamic VRAM leaves where they are.
    model.to(device)
    return device


def _unload(model: Any) -> None:
    if getattr(model, "patcher", None) is None:
        model.to("cpu")
