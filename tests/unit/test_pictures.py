"""Pictures come as they are in their files: alpha, colour under it, 16 bits, palettes, orientation, frames."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lib_layerdiffuse.documents.pictures import read_frames
from lib_layerdiffuse.errors import DiaphaneError

GREY, RGB, GREY_ALPHA, RGBA = 0, 2, 4, 6
CHANNELS = {GREY: 1, RGB: 3, GREY_ALPHA: 2, RGBA: 4}


def random(*shape: int, most: int = 255) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, most + 1, shape)


def frames(data: bytes | BytesIO) -> list[np.ndarray]:
    return [frame.numpy() for frame in read_frames(data if isinstance(data, BytesIO) else BytesIO(data))]


def saved(image: Image.Image, form: str, **options: Any) -> BytesIO:
    file = BytesIO()
    image.save(file, form, **options)
    return file


def deep_png(values: np.ndarray, kind: int, key: bytes = b"") -> bytes:
    """A PNG of 16 bits, which Pillow cannot write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    transparent = chunk(b"tRNS", key) if key else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + transparent + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", CHANNELS)
def test_pngs_of_16_bits_at_full_precision(kind: int) -> None:
    values = random(5, 7, CHANNELS[kind], most=65535)
    expected = values / 65535
    if kind in (GREY, GREY_ALPHA):
        expected = np.concatenate([expected[..., :1]] * 3 + [expected[..., 1:]], axis=-1)
    [found] = frames(deep_png(values, kind))
    assert found.dtype == np.float32 and np.abs(found - expected).max() < 1e-7
    if kind in (GREY, RGB):
        [keyed] = frames(deep_png(values, kind, values[2, 3].astype(">u2").tobytes()))
        assert np.array_equal(keyed[..., :3], found) and np.argwhere(keyed[..., 3] == 0).tolist() == [[2, 3]]


def test_grey_tiffs_have_16_bits_but_not_32() -> None:
    values = random(5, 7, most=65535).astype(np.uint16)
    [found] = frames(saved(Image.fromarray(values), "TIFF"))
    assert found.shape == (5, 7, 3) and np.abs(found - values[..., None] / 65535).max() < 1e-7
    with pytest.raises(DiaphaneError, match="32 bits, which are not read. Save it"):
        frames(saved(Image.fromarray(values.astype(np.float32)), "TIFF"))


def test_colour_under_transparent_pixels_stays() -> None:
    values = random(5, 7, 4).astype(np.uint8)
    values[:3, :, 3] = 0
    for form, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})):
        [found] = frames(saved(Image.fromarray(values), form, **options))
        assert np.array_equal(np.round(found * 255), values), form


def test_palettes_and_grey_with_alpha() -> None:
    index = random(5, 7, most=3).astype(np.uint8)
    palette, alpha = random(4, 3).astype(np.uint8), bytes([0, 90, 255, 10])
    image = Image.fromarray(index, "L").copy()
    image = image.convert("P")
    image.putdata(index.ravel().tolist())
    image.putpalette(palette.ravel().tolist())
    [found] = frames(saved(image, "PNG", transparency=alpha))
    expected = np.concatenate((palette[index], np.frombuffer(alpha, np.uint8)[index][..., None]), axis=-1)
    assert np.array_equal(np.round(found * 255), expected)
    grey = random(5, 7, 2).astype(np.uint8)
    [found] = frames(saved(Image.fromarray(grey, "LA"), "PNG"))
    assert np.array_equal(np.round(found * 255), grey[..., [0, 0, 0, 1]])
    assert frames(saved(Image.fromarray(grey[..., 0]), "JPEG"))[0].shape == (5, 7, 3)


def test_a_turned_picture_stands_upright() -> None:
    values = random(5, 7, 4).astype(np.uint8)
    image = Image.fromarray(values)
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    [found] = frames(saved(image, "PNG", exif=exif))
    assert np.array_equal(np.round(found * 255), np.rot90(values, -1))


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("GIF", {"disposal": 2})])
def test_animations_are_frames(form: str, options: dict[str, Any]) -> None:
    pictures = [Image.new("RGBA", (7, 5), (255 * (step == 0), 255 * (step == 1), 255 * (step == 2), 255)) for step in range(3)]
    for picture in pictures:
        picture.paste((0, 0, 0, 0), (0, 0, 3, 5))
    file = saved(pictures[0], form, save_all=True, append_images=pictures[1:], duration=100, **options)
    found = torch.stack(list(read_frames(file))).numpy()
    assert found.shape == (3, 5, 7, 4)
    assert (found[:, :, :3, 3] == 0).all() and (found[:, :, 3:, 3] == 1).all()
    assert np.array_equal(found[:, 0, 6, :3], np.eye(3))


def test_the_still_of_an_animated_png_is_not_a_frame() -> None:
    still, moving = Image.new("RGBA", (7, 5), (9, 9, 9, 255)), [Image.new("RGBA", (7, 5), (step, 0, 0, 255)) for step in (50, 100)]
    found = frames(saved(still, "PNG", save_all=True, append_images=moving, default_image=True))
    assert [round(float(frame[0, 0, 0] * 255)) for frame in found] == [50, 100]
