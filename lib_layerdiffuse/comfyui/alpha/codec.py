"""Colour and alpha out of decoded pictures and their latents, and back, on the device that ComfyUI gives the VAE.

B pictures of C channels; sides are H, W in pixels and h, w in latent cells.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import comfy.model_management as memory
import comfy.utils
import torch
import torch.nn.functional as F
from comfy.sd import VAE
from torch import Tensor

from ...nets.eight_passes import PASSES, alpha_first, estimate_rgba
from ...nets.offset_encoder import OFFSET_SCALE, OffsetEncoder
from ...nets.strips import STRIP_VALUES
from ...nets.transparent_decoder import TransparentDecoder
from ...pixels.bleed import bleed_rgb
from ...pixels.straight import on_grey
from ...weights.catalogue import Role
from ..layers import LATENT_SCALE
from .attempts import plans, raise_non_oom
from .managed_network import ManagedNetwork
from .posterior import encode_posterior

logger = logging.getLogger("diaphane")

PASS_CHOICES: list[int] = list(PASSES[::-1])  # best first

# Working memory of one pass, in values per pixel of the picture and channel of the first feature map. Measured on full-size networks:
# 8 for the decoder on small pictures, 4 and five strips on large ones, up to twice that with what a processor's C library keeps for later;
# 3 for the encoder.
DECODER_VALUES, DECODER_VALUES_BESIDE_STRIPS, STRIPS = 16, 8, 6
ENCODER_VALUES = 4


def decode_rgba(
    decoder: ManagedNetwork[TransparentDecoder],
    pixels: Tensor,
    latent: Tensor | None,
    *,
    passes: int = 8,
    tile: int = 0,
    report: bool = True,
) -> Tensor:
    """Colour and alpha of decoded pictures.

    pixels [B, H, W, 3] in [0, 1] of any size, latent [B, C, h, w] in raw VAE space, both finite, of any dtype and device. If the latent
    does not belong to pictures of this size (upscaled or retouched ones), or is None, the network works from the pixels alone.
    tile: side of the tiles in pixels; 0 takes the picture whole and falls back to tiles when memory runs out. report: whether the node's
    progress bar shows it.
    -> [B, H, W, 4] float32 in [0, 1], straight alpha, on ComfyUI's intermediate device. Raises DiaphaneError if memory does not suffice.
    """
    count, height, width = shape = pixels.shape[:3]
    channels = decoder.network.layout.latent_channels
    pixel = pixels[..., :3].movedim(-1, 1)  # BHWC -> BCHW
    latent = _latent_of_size(latent, pixel, channels)
    order = [1, 2, 3, 0] if alpha_first(channels) else [0, 1, 2, 3]
    rgba = torch.empty(*shape, 4, device=memory.intermediate_device())
    for _ in decoder.until_finite(Role.DECODER.value, rgba):
        for plan in plans(decoder, "decode", shape, tile, partial(_decoder_bytes, decoder, passes)):
            runs = count * passes * (_count_tiles(height, width, plan.tile) if plan.tile else 1)
            progress = comfy.utils.ProgressBar(runs) if report else None
            estimate = partial(_tiled_estimate, tile=plan.tile) if plan.tile else _estimate
            try:
                for rows in plan.batches:
                    rgba[rows] = estimate(decoder, pixel[rows], latent[rows], passes, progress)[:, order].movedim(1, -1)  # BCHW -> BHWC
                break
            except Exception as error:
                raise_non_oom(error)
    return rgba


def encode_rgba(
    vae: VAE, encoder: ManagedNetwork[OffsetEncoder], rgba: Tensor, *, offset_scale: float = OFFSET_SCALE, tile: int = 0
) -> Tensor:
    """Latents that hold colour and alpha.

    rgba [B, H, W, 4] in [0, 1], straight alpha, finite, H and W multiples of 8. tile: side of the tiles in pixels, 0 = whole.
    offset_scale: strength of the offset that carries alpha; 0 gives the latent of the picture on mid-grey.
    -> [B, C, H/8, W/8] in raw VAE space, of the dtype that `vae.encode` gives, on ComfyUI's intermediate device (docs/facts.md section 4).
    """
    mean, std = encode_posterior(vae, on_grey(rgba), tile=tile)
    if offset_scale == 0.0:
        return mean
    offset = torch.empty_like(mean)
    for _ in encoder.until_finite(Role.ENCODER.value, offset):
        for plan in plans(encoder, "encode", rgba.shape[:3], tile, partial(_encoder_bytes, encoder)):
            try:
                for rows in plan.batches:
                    offset[rows] = _offset(encoder, rgba[rows], plan.tile)
                break
            except Exception as error:
                raise_non_oom(error)
    return mean + std * offset_scale * offset


def bleed(rgba: Tensor) -> Tensor:
    """`bleed_rgb` picture by picture on the VAE's device, or on the CPU where that runs out of memory.

    [B, H, W, 4] in [0, 1], straight alpha -> [B, H, W, 3] float32 on ComfyUI's intermediate device.
    """
    bled = torch.empty(*rgba.shape[:3], 3, device=memory.intermediate_device())
    for index in range(len(rgba)):
        memory.throw_exception_if_processing_interrupted()
        try:
            bled[index] = bleed_rgb(rgba[index : index + 1].to(memory.vae_device()))[0]
            continue
        except Exception as error:
            raise_non_oom(error)
        memory.soft_empty_cache()
        bled[index] = bleed_rgb(rgba[index : index + 1].cpu())[0]
    return bled


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """[B, C, H, W], its last row and column repeated until both sides are multiples."""
    height, width = x.shape[2:]
    below, right = -height % multiple, -width % multiple
    return F.pad(x, (0, right, 0, below), mode="replicate") if below or right else x


def _latent_of_size(latent: Tensor | None, pixel: Tensor, channels: int) -> Tensor:
    """The latent if it belongs to pictures [B, 3, H, W] of this size, else the zeros which tell the decoder that there is none."""
    count, _, height, width = pixel.shape
    size = (-(-height // LATENT_SCALE), -(-width // LATENT_SCALE))
    if latent is not None and latent.shape[2:] == size:
        return latent
    if latent is not None:
        logger.info(
            "The latent is made for pictures of %dx%d, these are %dx%d: alpha is estimated from the pixels alone.",
            latent.shape[3] * LATENT_SCALE,
            latent.shape[2] * LATENT_SCALE,
            width,
            height,
        )
    return pixel.new_zeros(1, channels, *size).expand(count, -1, -1, -1)


def _decoder_bytes(decoder: ManagedNetwork[TransparentDecoder], passes: int, pixels: int) -> int:
    """Working memory for a picture of so many pixels."""
    layout = decoder.network.layout
    values = pixels * layout.channels[0]
    values = min(DECODER_VALUES * values, DECODER_VALUES_BESIDE_STRIPS * values + STRIPS * STRIP_VALUES)
    values += 2 * layout.attention_scores(decoder.device, pixels)  # the scores and their softmax
    return values * memory.dtype_size(decoder.dtype) + pixels * (passes // 2 + 2) * 4 * 4


def _encoder_bytes(encoder: ManagedNetwork[OffsetEncoder], pixels: int) -> int:
    """Working memory for a picture of so many pixels."""
    return pixels * ENCODER_VALUES * encoder.network.channels * memory.dtype_size(encoder.dtype)


def _estimate(
    decoder: ManagedNetwork[TransparentDecoder], pixel: Tensor, latent: Tensor, passes: int, progress: comfy.utils.ProgressBar | None
) -> Tensor:
    """`estimate_rgba` for pictures of any size, padded to what the network takes and cropped: [B, 3, H, W] -> [B, 4, H, W] float32."""
    height, width = pixel.shape[2:]
    multiple = decoder.network.layout.multiple
    pixel = pad_to_multiple(decoder.to_device(pixel), multiple)
    latent = pad_to_multiple(decoder.to_device(latent), multiple // LATENT_SCALE)

    def on_pass() -> None:
        memory.throw_exception_if_processing_interrupted()
        if progress is not None:
            progress.update(len(pixel))

    return estimate_rgba(decoder.network, pixel, latent, passes, on_pass)[..., :height, :width]


def _tiled_estimate(
    decoder: ManagedNetwork[TransparentDecoder],
    pixel: Tensor,
    latent: Tensor,
    passes: int,
    progress: comfy.utils.ProgressBar | None,
    tile: int,
) -> Tensor:
    """`_estimate` in tiles of `tile` pixels."""
    height, width = pixel.shape[2:]
    # ComfyUI's tiling takes one tensor: the picture, folded to the latent's size, is concatenated with the latent.
    folded = F.pixel_unshuffle(pad_to_multiple(pixel, LATENT_SCALE), LATENT_SCALE)
    channels = folded.shape[1]

    def estimate(both: Tensor) -> Tensor:
        return _estimate(decoder, F.pixel_shuffle(both[:, :channels], LATENT_SCALE), both[:, channels:], passes, progress)

    both = torch.cat((folded, latent.to(folded)), dim=1)
    return _tiled(estimate, both, tile // LATENT_SCALE, LATENT_SCALE, 4)[..., :height, :width]


def _offset(encoder: ManagedNetwork[OffsetEncoder], rgba: Tensor, tile: int) -> Tensor:
    """The raw offset, whole (tile 0) or in tiles: [B, H, W, 4] -> [B, C, H/8, W/8]."""
    channels = encoder.network.latent_channels
    parts = (rgba[..., 3:], bleed(rgba).to(rgba))
    image = torch.cat(parts if alpha_first(channels) else parts[::-1], dim=-1).movedim(-1, 1)  # BHWC -> BCHW
    if not tile:
        return encoder.network(encoder.to_device(image))
    return _tiled(lambda part: encoder.network(encoder.to_device(part)), image, tile, 1 / LATENT_SCALE, channels)


def _tiled(run: Callable[[Tensor], Tensor], x: Tensor, tile: int, scale: float, channels: int) -> Tensor:
    """`run` over tiles of [B, C, H, W], one picture after another; its result has `channels` channels and `scale` times the size."""
    tiled_scale: Any = comfy.utils.tiled_scale
    return tiled_scale(
        x,
        run,
        tile_x=tile,
        tile_y=tile,
        overlap=tile // 4,
        upscale_amount=scale,
        out_channels=channels,
        output_device=memory.intermediate_device(),
    )


def _count_tiles(height: int, width: int, tile: int) -> int:
    """How many tiles `_tiled` makes of the latent cells of a picture."""
    cells = tile // LATENT_SCALE
    return comfy.utils.get_tiled_scale_steps(-(-width // LATENT_SCALE), -(-height // LATENT_SCALE), cells, cells, cells // 4)
