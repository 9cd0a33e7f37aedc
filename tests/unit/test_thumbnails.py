"""Thumbnails are small, square and show what is transparent."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from dev.thumbnails import DARK, GAP, LIGHT, MOST_BYTES, SIDE, arranged, checkerboard, small_jpeg


def test_what_is_transparent_lies_on_a_checkerboard() -> None:
    picture = Image.new("RGBA", (100, 100), (255, 0, 0, 0))
    picture.paste((255, 0, 0, 255), (0, 50, 100, 100))
    square = arranged([picture])
    assert square.size == (SIDE, SIDE)
    assert {square.getpixel((10, 10)), square.getpixel((30, 10))} == {LIGHT, DARK}
    assert square.getpixel((10, SIDE - 10)) == (255, 0, 0)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_several_pictures_stand_side_by_side(count: int) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)][:count]
    square = arranged([Image.new("RGB", (64, 128), colour) for colour in colours])
    row = [square.getpixel((x, SIDE // 2)) for x in range(SIDE)]
    assert [colour for n, colour in enumerate(row) if colour != (0, 0, 0) and (n == 0 or row[n - 1] != colour)] == colours
    assert row.count((0, 0, 0)) == (count - 1) * GAP
    assert row[-1] == colours[-1]


def test_noise_is_made_to_fit() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8))
    flat = checkerboard(SIDE, SIDE)
    assert len(small_jpeg(noise)) < 2 * MOST_BYTES
    content = small_jpeg(flat)
    assert len(content) <= MOST_BYTES
    assert Image.open(io.BytesIO(content)).format == "JPEG"
