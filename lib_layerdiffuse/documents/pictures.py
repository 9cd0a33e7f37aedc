"""Pictures from files as they are: alpha beside the colour, colour under alpha 0, 16 bits of a PNG, every frame of an animation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps, ImageSequence
from torch import Tensor

from ..errors import DiaphaneError
from .tree import check_size

# Pillow has no RGBA of 16 bits and takes the upper byte of each value. How it reads a PNG, and how to read the lower byte by it.
LOWER_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}
BOTH_BYTES = "RGBA"  # grey and alpha of two bytes each are read as four channels
GREY_AND_ALPHA = "LA;16B"
GREY = "I;16B"


def read_frames(file: IO[bytes]) -> Iterator[Tensor]:
    """The pictures in a file, [H, W, 3 or 4] each, straight alpha, float32; several if it is animated. Turned as its EXIF says.

    Four channels if it says anything about transparency. Raises DiaphaneError for one that is too large, or of 32 bits; a file that is no
    picture raises others.
    """
    image = Image.open(file)
    check_size(image.height, image.width)
    deep = _deep(image, file)
    if deep is not None:
        yield torch.from_numpy(deep)
        return
    for number, frame in enumerate(ImageSequence.Iterator(image)):
        if number == 0 and image.info.get("default_image"):
            continue  # what an animated PNG shows where animations are not known
        yield torch.from_numpy(_shallow(frame))


def _shallow(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16"):  # a grey TIFF, which Pillow would cut at 255
        return np.asarray(ImageOps.exif_transpose(image), np.float32)[..., None].repeat(3, axis=-1) / 65535.0
    if image.mode in ("I", "F"):
        raise DiaphaneError("its values have 32 bits, which are not read. Save it with 8 or 16 bits in a paint program.")
    transparent = image.has_transparency_data
    return np.asarray(ImageOps.exif_transpose(image).convert("RGBA" if transparent else "RGB"), np.float32) / 255.0


def _deep(image: ImageFile.ImageFile, file: IO[bytes]) -> np.ndarray | None:
    """A picture of 16 bits; None if it has 8."""
    if image.format != "PNG" or getattr(image, "n_frames", 1) > 1:
        return None
    how = image.tile[0][3]
    key = image.info.get("transparency")  # the one colour that is transparent
    if how == GREY:
        values = np.asarray(ImageOps.exif_transpose(image), np.float32)[..., None].repeat(3, axis=-1)
    elif how == GREY_AND_ALPHA:
        grey_high, grey_low, alpha_high, alpha_low = np.moveaxis(_read_as(image, BOTH_BYTES), -1, 0)
        grey = grey_high * 256.0 + grey_low
        values = np.stack((grey, grey, grey, alpha_high * 256.0 + alpha_low), axis=-1)
    elif how in LOWER_BYTES:
        again = Image.open(file)
        values = _read_as(image, how) * 256.0 + _read_as(again, LOWER_BYTES[how])
    else:
        return None
    if key is not None:
        values = np.concatenate((values, 65535.0 * (values != key).any(axis=-1, keepdims=True)), axis=-1)
    return (values / 65535.0).astype(np.float32)


def _read_as(image: ImageFile.ImageFile, how: str) -> np.ndarray:
    image.tile = [(*image.tile[0][:3], how)]  # pyright: ignore[reportAttributeAccessIssue] - Pillow takes any tuple
    return np.asarray(ImageOps.exif_transpose(image), np.float32)
