"""Pictures with alpha out of ordinary pictures and latents, and back, on the device that ComfyUI gives the VAE."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import comfy.model_management as memory
import comfy.utils
import torch
import torch.nn.functional as F
from comfy.sd import VAE
from torch import Tensor

from ...errors import DiaphaneError
from ...nets.eight_passes import PASSES, alpha_first, estimate_rgba
from ...nets.offset_encoder import OFFSET_SCALE, OffsetEncoder
from ...nets.strips import LARGE_STRIP_VALUES
from ...nets.transparent_decoder import TransparentDecoder
from ...pixels.bleed import bleed_rgb
from ...pixels.straight import check_picture, on_grey
from ...weights.catalogue import Family, Role
from ..layers import FOREGROUND, LATENT_SCALE, LAYERS_KEY
from .latents import check_latent
from .managed_network import ManagedNetwork, ran_out_of_memory
from .posterior import encode_posterior

logger = logging.getLogger("diaphane")

SIZE_KEY = "pixel_size"  # in a LATENT: height and width of the encoded picture before padding
PASS_CHOICES: list[int] = list(PASSES[::-1])  # best first
FALLBACK_TILES = (1024, 512, 256)
TILE_STEP = 64  # what the released decoders take is a multiple of this

# Working memory of one pass, in values per pixel of the picture and channel of the first feature map. Measured on full-size networks:
# 8 for the decoder on small pictures, 4 and five strips on large ones, up to twice that with what a processor's C library keeps for later;
# 3 for the encoder.
DECODER_VALUES, DECODER_VALUES_BESIDE_STRIPS, STRIPS = 16, 8, 6
ENCODER_VALUES = 4


def decode_rgba(
    decoder: ManagedNetwork[TransparentDecoder], pixels: Tensor, latent: Tensor | None, *, passes: int = 8, tile: int = 0
) -> Tensor:
    """Colour and alpha of decoded pictures.

    pixels [B, H, W, 3] in [0, 1] of any size, latent [B, C, h, w] in raw VAE space. If the latent does not belong to pictures of this
    size (upscaled or retouched ones), or is None, the network works from the pixels alone. tile: side of the tiles in pixels; 0 takes
    the picture whole and falls back to tiles when memory runs out.
    -> [B, H, W, 4] float32 in [0, 1], straight alpha, on ComfyUI's intermediate device.
    """
    layout = decoder.network.layout
    count, height, width = pixels.shape[:3]
    latent_size = (math.ceil(height / LATENT_SCALE), math.ceil(width / LATENT_SCALE))
    if latent is not None and tuple(latent.shape[2:]) != latent_size:
        logger.info(
            "The latent is made for pictures of %dx%d, these are %dx%d: alpha is estimated from the pixels alone.",
            latent.shape[3] * LATENT_SCALE,
            latent.shape[2] * LATENT_SCALE,
            width,
            height,
        )
        latent = None
    if latent is None:
        latent = pixels.new_zeros(1, layout.latent_channels, *latent_size).expand(count, -1, -1, -1)
    if latent.shape[0] != count:
        raise DiaphaneError(f"Got {count} pictures and {latent.shape[0]} latents. Decode the pictures of one batch together.")

    # What is no number here is not the network's doing.
    check_picture(pixels)
    check_latent(latent, layout.latent_channels, f"The latent has {{}} channels, this decoder is made for {layout.latent_channels}.")
    pixel = pixels[..., :3].movedim(-1, 1)  # BHWC -> BCHW
    result = torch.empty(count, height, width, 4, device=memory.intermediate_device())
    order = [1, 2, 3, 0] if alpha_first(layout.latent_channels) else [0, 1, 2, 3]

    def bytes_for(pixels: int) -> int:
        values = pixels * layout.widths[0]
        values = min(DECODER_VALUES * values, DECODER_VALUES_BESIDE_STRIPS * values + STRIPS * LARGE_STRIP_VALUES)
        values += 2 * layout.attention_scores(decoder.device, pixels)  # the scores and their softmax
        return values * memory.dtype_size(decoder.dtype) + pixels * (passes // 2 + 2) * 4 * 4

    def attempt(side: int, last_resort: bool) -> bool:
        """Decode all pictures, in tiles of `side` pixels or (0) whole."""
        progress = comfy.utils.ProgressBar(count * passes * (_count_tiles(height, width, side) if side else 1))

        def run(first: int, last: int) -> None:
            args = (decoder, pixel[first:last], latent[first:last], passes, progress)
            estimate = _tiled_estimate(*args, tile=side) if side else _padded_estimate(*args)
            result[first:last] = estimate[:, order].movedim(1, -1)  # BCHW -> BHWC

        return decoder.each_batch(count, bytes_for(side * side or height * width), run, last_resort=last_resort)

    def compute() -> Tensor:
        _whole_or_tiled(attempt, height, width, tile, "decode")
        return result

    return decoder.finite(Role.DECODER.value, compute)


def encode_rgba(
    vae: VAE, encoder: ManagedNetwork[OffsetEncoder], rgba: Tensor, *, offset_scale: float = OFFSET_SCALE, tile: int = 0
) -> Tensor:
    """Latents that hold colour and alpha: rgba [B, H, W, 4] in [0, 1], straight alpha, H and W multiples of 8 -> [B, C, H/8, W/8].

    offset_scale: strength of the offset that carries alpha; 0 gives the latent of the picture on mid-grey.
    tile: side of the tiles in pixels, 0 = whole. Raw VAE space, on ComfyUI's intermediate device (docs/facts.md section 4).
    """
    mean, std = encode_posterior(vae, on_grey(rgba), tile=tile)
    if offset_scale == 0.0:
        return mean
    count, height, width = rgba.shape[:3]
    channels = encoder.network.latent_channels
    offset = torch.empty_like(mean)

    def bytes_for(pixels: int) -> int:
        return pixels * ENCODER_VALUES * encoder.network.width * memory.dtype_size(encoder.dtype)

    def attempt(side: int, last_resort: bool) -> bool:
        """Encode all pictures, in tiles of `side` pixels or (0) whole."""

        def network(image: Tensor) -> Tensor:
            return encoder.network(encoder.to_device(image))

        def run(first: int, last: int) -> None:
            picture = rgba[first:last]
            parts = (picture[..., 3:], bleed(picture).to(picture))
            image = torch.cat(parts if alpha_first(channels) else parts[::-1], dim=-1).movedim(-1, 1)  # BHWC -> BCHW
            offset[first:last] = _tiled(network, image, side, 1 / LATENT_SCALE, channels) if side else network(image)

        return encoder.each_batch(count, bytes_for(side * side or height * width), run, last_resort=last_resort)

    def compute() -> Tensor:
        _whole_or_tiled(attempt, height, width, tile, "encode")
        return offset

    return mean + std * offset_scale * encoder.finite(Role.ENCODER.value, compute)


def encode_any_size(
    vae: VAE, encoder: ManagedNetwork[OffsetEncoder], rgba: Tensor, *, family: Family, offset_scale: float = OFFSET_SCALE
) -> dict[str, Any]:
    """`encode_rgba` for pictures of any size, as a LATENT: padded to whole latent cells, with what the decoder wants to know.

    That is the size before padding and, for SD1.5, the name of the layer, which tells its latents from those of SDXL.
    """
    padded = _pad(rgba.movedim(-1, 1), LATENT_SCALE).movedim(1, -1)
    latent = {"samples": encode_rgba(vae, encoder, padded, offset_scale=offset_scale), SIZE_KEY: tuple(rgba.shape[1:3])}
    return latent | {LAYERS_KEY: (FOREGROUND,)} if family is Family.SD15 else latent


def bleed(rgba: Tensor) -> Tensor:
    """`bleed_rgb` picture by picture on the VAE's device, or without its memory on the CPU.

    [B, H, W, 4] -> [B, H, W, 3] on ComfyUI's intermediate device.
    """
    bled = torch.empty(*rgba.shape[:3], 3, device=memory.intermediate_device())

    def run(index: int, device: torch.device) -> None:
        bled[index] = bleed_rgb(rgba[index : index + 1].to(device))[0]

    for index in range(len(rgba)):
        memory.throw_exception_if_processing_interrupted()
        if ran_out_of_memory(run, index, memory.vae_device()):
            memory.soft_empty_cache()
            run(index, torch.device("cpu"))  # slower, but the larger memory
    return bled


def _padded_estimate(
    decoder: ManagedNetwork[TransparentDecoder], pixel: Tensor, latent: Tensor, passes: int, progress: comfy.utils.ProgressBar
) -> Tensor:
    """The estimate for pictures of any size: padded to what the network takes, cropped back."""
    height, width = pixel.shape[2:]
    multiple = decoder.network.layout.multiple
    pixel = _pad(decoder.to_device(pixel), multiple)
    latent = _pad(decoder.to_device(latent), multiple // LATENT_SCALE)

    def on_pass() -> None:
        memory.throw_exception_if_processing_interrupted()
        progress.update(pixel.shape[0])

    return estimate_rgba(decoder.network, pixel, latent, passes, on_pass)[..., :height, :width]


def _tiled_estimate(
    decoder: ManagedNetwork[TransparentDecoder], pixel: Tensor, latent: Tensor, passes: int, progress: comfy.utils.ProgressBar, tile: int
) -> Tensor:
    height, width = pixel.shape[2:]
    # The host's tiling knows one input: the picture, folded to the latent's size, rides on the latent.
    folded = F.pixel_unshuffle(_pad(pixel, LATENT_SCALE), LATENT_SCALE)
    channels = folded.shape[1]

    def estimate(both: Tensor) -> Tensor:
        return _padded_estimate(decoder, F.pixel_shuffle(both[:, :channels], LATENT_SCALE), both[:, channels:], passes, progress)

    both = torch.cat((folded, latent.to(folded)), dim=1)
    return _tiled(estimate, both, tile // LATENT_SCALE, LATENT_SCALE, 4)[..., :height, :width]


def _tiled(run: Callable[[Tensor], Tensor], x: Tensor, tile: int, scale: float, channels: int) -> Tensor:
    """`run` over tiles of [B, C, H, W] whose result has `channels` channels and `scale` times the size."""
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


def _whole_or_tiled(attempt: Callable[[int, bool], bool], height: int, width: int, tile: int, verb: str) -> None:
    """Call `attempt(side of the tiles, whether it is the last one)` until it succeeds: 0 = whole.

    As the artist wishes, or (tile 0) in ever smaller tiles.
    """
    tile = -(-tile // TILE_STEP) * TILE_STEP  # over a wire comes any number
    longest = max(height, width)
    sides = (tile,) if 0 < tile < longest else (0, *(side for side in FALLBACK_TILES if side < longest))
    for side in sides:
        if attempt(side, side == sides[-1]):
            return
        logger.warning("Not enough memory to %s %dx%d %s.", verb, width, height, f"in tiles of {side}" if side else "as a whole")
    raise DiaphaneError(
        f"Not enough memory to {verb} a picture of {width}x{height}{f' in tiles of {sides[-1]} pixels' if sides[-1] else ''}. "
        "Close other programs, set a smaller tile size, or scale the picture down."
    )


def _count_tiles(height: int, width: int, tile: int) -> int:
    cells = tile // LATENT_SCALE
    return comfy.utils.get_tiled_scale_steps(-(-width // LATENT_SCALE), -(-height // LATENT_SCALE), cells, cells, cells // 4)


def _pad(x: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until both sides are multiples."""
    height, width = x.shape[2:]
    below, right = -height % multiple, -width % multiple
    return F.pad(x, (0, right, 0, below), mode="replicate") if below or right else x
