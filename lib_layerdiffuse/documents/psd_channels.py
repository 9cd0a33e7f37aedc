"""Pixels of a Photoshop document: from compressed channels to RGB."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageCms

from ..errors import DiaphaneError
from ..pixels.linear_blend import to_srgb
from .tree import SAVE_AGAIN

BITMAP, GREY, INDEXED, RGB, CMYK, DUOTONE, LAB = 0, 1, 2, 3, 4, 8, 9
COLOURS = {BITMAP: 1, GREY: 1, INDEXED: 1, RGB: 3, CMYK: 4, DUOTONE: 1, LAB: 3}  # channels before transparency and masks
RAW, RLE, ZIP, ZIP_PREDICTED = range(4)
LINEAR_DEPTH = 32  # such a document holds linear light
BLACK_POINT: Any = 0x2000  # littleCMS: black of the one becomes black of the other, as in Photoshop

# CIE Lab of D50 to linear sRGB, whose white is D65: XYZ by Bradford's adaptation (Lindbloom).
WHITE = (0.96422, 1.0, 0.82521)
XYZ_TO_RGB = ((3.1338561, -1.6168667, -0.4906146), (-0.9787684, 1.9161415, 0.0334540), (0.0719453, -0.2289914, 1.4052427))


def decode(data: bytes, height: int, width: int, depth: int, version: int) -> np.ndarray:
    """A channel as it lies in the file, two bytes of compression first -> [height, width], float32, 0 to 1.

    No more memory is used than that, whatever the data say. Raises DiaphaneError for data that end too soon.
    """
    compression, packed = int.from_bytes(data[:2], "big"), data[2:]
    row = (width * depth + 7) // 8
    if compression == RAW:
        raw = packed
    elif compression == RLE:
        lengths = height * 2 * version  # of each row
        raw = Image.frombytes("L", (row, height), packed[lengths:], "packbits", "L").tobytes()
    elif compression in (ZIP, ZIP_PREDICTED):
        raw = zlib.decompressobj().decompress(packed, row * height)
    else:
        raise DiaphaneError(f"it is compressed in a way that is not known ({compression}). {SAVE_AGAIN}")
    if len(raw) < row * height:
        raise DiaphaneError(f"it ends in the middle of a layer. {SAVE_AGAIN}")
    rows = np.frombuffer(raw, np.uint8, row * height).reshape(height, row)
    return _numbers(rows, width, depth, compression == ZIP_PREDICTED)


def _numbers(rows: np.ndarray, width: int, depth: int, predicted: bool) -> np.ndarray:
    """Rows of bytes [H, bytes] -> [H, width]. Predicted: each value is the difference to the one before it."""
    if depth == 1:
        return 1.0 - np.unpackbits(rows, axis=1)[:, :width].astype(np.float32)
    if depth == 8:
        values = np.cumsum(rows, axis=1, dtype=np.uint8) if predicted else rows
        return values.astype(np.float32) / 255.0
    if depth == 16:
        values = rows.view(">u2")
        values = np.cumsum(values, axis=1, dtype=np.uint16) if predicted else values
        return values.astype(np.float32) / 65535.0
    if predicted:  # the first bytes of all values, then the second ones …
        planes = np.cumsum(rows, axis=1, dtype=np.uint8).reshape(len(rows), 4, width)
        rows = np.ascontiguousarray(planes.swapaxes(1, 2)).reshape(len(rows), 4 * width)
    values = rows.view(">f4").astype(np.float32)
    return np.clip(np.nan_to_num(values), 0.0, 1.0)


def to_rgb(channels: Sequence[np.ndarray], mode: int, depth: int, profile: bytes, palette: bytes = b"") -> list[np.ndarray]:
    """The colour channels of a mode, [H, W] each -> red, green and blue in 0 to 1, sRGB, float32."""
    if mode == CMYK:
        return _from_ink(channels, profile)
    if mode == LAB:
        return _from_lab(channels, depth)
    if mode == INDEXED:
        index = (channels[0] * 255.0 + 0.5).astype(np.uint8)
        return [table[index].astype(np.float32) / 255.0 for table in np.frombuffer(palette, np.uint8, 768).reshape(3, 256)]
    if depth == LINEAR_DEPTH:
        channels = [_to_srgb(channel) for channel in channels]
    return [*channels] * (3 // len(channels))


def profile_name(profile: bytes) -> str:
    """What a colour profile calls itself; empty if it is none."""
    try:
        return ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(BytesIO(profile))).strip() if profile else ""
    except (OSError, ImageCms.PyCMSError):
        return ""


def _from_ink(channels: Sequence[np.ndarray], profile: bytes) -> list[np.ndarray]:
    """CMYK, of which 1 is no ink, by the document's profile; without one, each ink takes its part of the light."""
    if not profile_name(profile):
        return [channel * channels[3] for channel in channels[:3]]
    ink = Image.merge("CMYK", [Image.fromarray(255 - (channel * 255.0 + 0.5).astype(np.uint8)) for channel in channels])
    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "CMYK", "RGB", intent, BLACK_POINT)
    converted = ImageCms.applyTransform(ink, transform) or ink
    return [np.asarray(band, np.float32) / 255.0 for band in converted.split()]


def _from_lab(channels: Sequence[np.ndarray], depth: int) -> list[np.ndarray]:
    lightness = (channels[0] * 100.0 + 16.0) / 116.0
    whole = 255.0 if depth == 8 else 65535.0 / 256.0  # 128 is no colour, or 32768
    a, b = (channel * whole - 128.0 for channel in channels[1:])
    roots = (lightness + a / 500.0, lightness, lightness - b / 200.0)
    x, y, z = (_from_root(root) * white for root, white in zip(roots, WHITE, strict=True))
    return [_to_srgb(by_x * x + by_y * y + by_z * z) for by_x, by_y, by_z in XYZ_TO_RGB]


def _from_root(root: np.ndarray) -> np.ndarray:
    return np.where(root > 6.0 / 29.0, root**3, (root - 4.0 / 29.0) * (108.0 / 841.0))


def _to_srgb(linear: np.ndarray) -> np.ndarray:
    return to_srgb(torch.from_numpy(linear).clamp(0.0, 1.0)).numpy()
