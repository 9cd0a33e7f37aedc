"""OpenRaster documents of Krita, GIMP and MyPaint: nested groups, what they add to the specification, and what is refused."""

from __future__ import annotations

import zipfile
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from lib_layerdiffuse.documents.read_openraster import read_openraster
from lib_layerdiffuse.documents.tree import APART, MERGE, Document

SIZE = (6, 9)


def read(stack: str, **pictures: np.ndarray) -> Document:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("stack.xml", f'<?xml version="1.0" encoding="UTF-8"?><image w="{SIZE[1]}" h="{SIZE[0]}">{stack}</image>')
        for name, picture in pictures.items():
            with archive.open(f"data/{name}.png", "w") as entry:
                Image.fromarray(picture).save(entry, "PNG")
    return read_openraster(file)


def filled(*colour: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.broadcast_to(np.array(colour, np.uint8), (*size, len(colour))).copy()


def flat(document: Document, groups: str) -> np.ndarray:
    return document.layers(groups).flatten()[0].numpy()


def test_groups_in_groups() -> None:
    stack = """<stack>
      <stack name="outer" x="2" y="1" opacity="0.5" visibility="visible" isolation="isolate">
        <layer name="hidden" src="data/red.png" visibility="hidden"/>
        <stack name="inner" x="1" y="-2" composite-op="svg:multiply">
          <layer name="small" src="data/small.png" x="1" y="3" opacity="0.5"/>
        </stack>
      </stack>
      <layer name="ground" src="data/ground.png"/>
    </stack>"""
    pictures = {"red": filled(255, 0, 0, 255), "small": filled(0, 0, 255, 255, size=(2, 3)), "ground": filled(102, 204, 255)}
    document = read(stack, **pictures)
    apart = document.layers(APART)
    assert [(layer.name, layer.x, layer.y, layer.opacity, layer.visible, layer.mode) for layer in apart.layers] == [
        ("ground", 0, 0, 1.0, True, "normal"),
        ("small", 4, 2, 0.25, True, "multiply"),
        ("hidden", 2, 1, 0.5, False, "normal"),
    ]
    merged = document.layers(MERGE)
    assert [(layer.name, layer.x, layer.y, layer.opacity) for layer in merged.layers[1:]] == [("outer", 4, 2, 0.5)]
    ground = np.array([0.4, 0.8, 1.0])
    expected = np.broadcast_to(ground, (*SIZE, 3)).copy()
    expected[2:4, 4:7] = ground * 0.75 + np.array([0, 0, 1.0]) * 0.25  # within the group there is nothing to multiply with
    assert np.abs(flat(document, MERGE) - expected).max() < 1e-6


@pytest.mark.parametrize(
    ("operation", "mode"),
    [
        ("svg:src-over", "normal"),
        ("svg:plus", "add"),
        ("svg:add", "add"),
        ("krita:exclusion", "exclusion"),
        ("svg:color-burn", "colour burn"),
    ]
    + [("krita:soft_light", "soft light"), ("gimp:luminosity", "luminosity"), ("multiply", "multiply")],
)
def test_operations_as_each_program_spells_them(operation: str, mode: str) -> None:
    document = read(f'<stack><layer name="a" src="data/a.png" composite-op="{operation}"/></stack>', a=filled(9, 9, 9))
    assert document.layers(APART).layers[0].mode == mode and document.notes.lines() == []


def test_operations_that_are_not_known_are_said() -> None:
    document = read('<stack><layer name="a" src="data/a.png" composite-op="krita:pinch"/></stack>', a=filled(9, 9, 9))
    assert document.layers(APART).layers[0].mode == "normal"
    assert document.notes.lines() == ["A blend mode that is not known here is taken as normal: a (pinch)."]


def test_inherited_alpha_is_clipping() -> None:
    half = filled(0, 255, 0, 0)
    half[:, :4, 3] = 255
    stack = '<stack><layer name="above" src="data/red.png" composite-op="svg:src-atop"/><layer name="base" src="data/half.png"/></stack>'
    expected = filled(255, 0, 0, 0) / 255
    expected[:, :4, 3] = 1.0
    for groups in (APART, MERGE):
        found = flat(read(stack, red=filled(255, 0, 0, 255), half=half), groups)
        assert np.abs((found - expected)[..., 3]).max() == 0 and np.abs((found - expected)[:, :4]).max() < 1e-6
