"""Batches of pictures as a sprite sheet or an animation in ComfyUI's output folder."""

from __future__ import annotations

import json
from collections.abc import Sequence

import comfy.model_management
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...documents.animation import LOSSLESS, SUFFIXES, WEBM, WEBP, write_animation
from ...documents.bytes import to_bytes
from ...documents.png import COMPRESS_LEVEL, text_chunks
from ...documents.sheet import Sheet, Sprite, atlas, draw, sprite_names
from ...pixels.bleed import bleed_rgb
from .output_files import Metadata, Result, explaining, listed, output_place, whole_file, whole_files


def save_sheet(
    sprites: Sequence[Sprite], sheet: Sheet, padding: int, bleed: bool, names: Sequence[str], prefix: str, metadata: Metadata
) -> tuple[Tensor, list[Result]]:
    """Save a sheet and its atlas, both or neither: (the sheet [H, W, 4], the two files).

    names: see `sprite_names`.
    """
    folder, name, counter, subfolder = output_place(prefix, sheet.width, sheet.height)
    named = dict(zip(sprite_names(names, len(sprites), name), sprites, strict=True))
    picture, words = (folder / f"{name}_{counter:05}_.{suffix}" for suffix in ("png", "json"))
    pixels = draw(sprites, sheet, padding, bleed)
    comfy.model_management.throw_exception_if_processing_interrupted()
    with explaining(folder), whole_files(picture, words) as (image_file, atlas_file):
        Image.fromarray(to_bytes(pixels)).save(image_file, "PNG", pnginfo=text_chunks(metadata), compress_level=COMPRESS_LEVEL)
        atlas_file.write(json.dumps(atlas(named, sheet, picture.name), indent=1, ensure_ascii=False).encode())
    return pixels, [listed(picture, subfolder), listed(words, subfolder)]


def save_animation(rgba: Tensor, form: str, prefix: str, fps: float, loop: int, quality: int, metadata: Metadata) -> Result:
    """Save pictures [B, H, W, 4], straight alpha, as the frames of one file."""
    height, width = rgba.shape[1:3]
    folder, name, counter, subfolder = output_place(prefix, width, height)
    path = folder / f"{name}_{counter:05}_.{SUFFIXES[form]}"
    mixes = form == WEBM or (form == WEBP and quality < LOSSLESS)
    frames = (_frame(picture, bled=mixes) for picture in rgba.split(1))
    with explaining(folder), whole_file(path) as file:
        write_animation(file, form, frames, fps, loop, quality, metadata)
    return listed(path, subfolder)


def _frame(picture: Tensor, bled: bool) -> np.ndarray:
    """bled: colour goes on under transparent pixels, because the format mixes the colour of neighbours."""
    comfy.model_management.throw_exception_if_processing_interrupted()
    return to_bytes(torch.cat((bleed_rgb(picture), picture[..., 3:]), dim=-1)[0] if bled else picture[0])
