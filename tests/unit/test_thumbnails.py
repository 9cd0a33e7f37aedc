"""Thumbnails are small, square and show what is transparent."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from dev.thumbnails import DARK, FELT, LIGHT, MOST_BYTES, SIDE, arranged, checkerboard, small_jpeg


def test_what_is_transparent_lies_on_a_checkerboard() -> None:
    picture = Image.new("RGBA", (100, 100), (255, 0, 0, 0))
    picture.paste((255, 0, 0, 255), (0, 50, 100, 100))
    square = arranged([picture])
    assert square.size == (SIDE, SIDE)
    assert {square.getpixel((10, 10)), square.getpixel((30, 10))} == {LIGHT, DARK}
    assert square.getpixel((10, SIDE - 10)) == (255, 0, 0)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_picture_can_be_seen(count: int) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)][:count]
    square = arranged([Image.new("RGB", (64, 128), colour) for colour in colours])
    found = {colour: number for number, colour in square.getcolors(SIDE * SIDE) or ()}
    assert all(found[colour] > SIDE * SIDE / 8 for colour in colours)
    assert set(found) <= {*colours, FELT}


def test_noise_is_made_to_fit() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8))
    flat = checkerboard(SIDE, SIDE)
    assert len(small_jpeg(noise)) < 2 * MOST_BYTES
    content = small_jpeg(flat)
    assert len(content) <= MOST_BYTES
    assert Image.open(io.BytesIO(content)).format == "JPEG"
