"""Layers as an OpenRaster document, which Krita, GIMP and MyPaint open (openraster.org, baseline 0.0.5), one layer in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import BinaryIO
from xml.etree import ElementTree
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..pixels.composite import Layers
from .bytes import reduced, to_bytes
from .png import COMPRESS_LEVEL, text_chunks

MEDIA_TYPE = "image/openraster"
THUMBNAIL_SIDE = 256
# The specification has no names for those that begin with "krita:". Programs other than Krita show such layers as normal.
OPERATIONS = {
    "normal": "svg:src-over",
    "multiply": "svg:multiply",
    "screen": "svg:screen",
    "overlay": "svg:overlay",
    "soft light": "svg:soft-light",
    "hard light": "svg:hard-light",
    "add": "svg:plus",
    "darken": "svg:darken",
    "lighten": "svg:lighten",
    "difference": "svg:difference",
    "exclusion": "krita:exclusion",
    "colour dodge": "svg:color-dodge",
    "colour burn": "svg:color-burn",
    "linear burn": "krita:linear_burn",
    "vivid light": "krita:vivid_light",
    "linear light": "krita:linear light",
    "pin light": "krita:pin_light",
    "hard mix": "krita:hard_mix_photoshop",
    "subtract": "krita:subtract",
    "divide": "krita:divide",
    "grain extract": "krita:grain_extract",
    "grain merge": "krita:grain_merge",
    "hue": "svg:hue",
    "saturation": "svg:saturation",
    "colour": "svg:color",
    "luminosity": "svg:luminosity",
}


def write_openraster(file: BinaryIO, layers: Layers, flat: np.ndarray, metadata: Mapping[str, str]) -> None:
    """Write the first picture of a batch of layers. flat: the same, flattened, [H, W, 3 or 4] in 0 to 255.

    The metadata is in the merged picture, as in a PNG file.
    """
    with ZipFile(file, "w", ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", MEDIA_TYPE, compress_type=ZIP_STORED)
        sources = []
        for index, layer in enumerate(layers.layers):
            sources.append(f"data/layer{index:03}.png")
            _write_png(archive, sources[-1], Image.fromarray(to_bytes(layer.image[0])))
        archive.writestr("stack.xml", stack_xml(layers, sources))
        _write_png(archive, "mergedimage.png", Image.fromarray(flat), text_chunks(metadata))
        _write_png(archive, "Thumbnails/thumbnail.png", reduced(flat, THUMBNAIL_SIDE))


def stack_xml(layers: Layers, sources: list[str]) -> bytes:
    """The description of the layers, the topmost first."""
    image = ElementTree.Element("image", version="0.0.5", w=str(layers.width), h=str(layers.height))
    stack = ElementTree.SubElement(image, "stack")
    for layer, source in reversed(list(zip(layers.layers, sources, strict=True))):
        ElementTree.SubElement(
            stack,
            "layer",
            {
                "name": layer.name,
                "src": source,
                "x": str(layer.x),
                "y": str(layer.y),
                "opacity": f"{layer.opacity:.6g}",
                "visibility": "visible" if layer.visible else "hidden",
                "composite-op": OPERATIONS[layer.mode],
            },
        )
    return ElementTree.tostring(image, encoding="UTF-8", xml_declaration=True)


def _write_png(archive: ZipFile, name: str, image: Image.Image, chunks: PngInfo | None = None) -> None:
    with archive.open(ZipInfo(name), "w", force_zip64=True) as entry:  # stored: a PNG is compressed already
        image.save(entry, "PNG", pnginfo=chunks, compress_level=COMPRESS_LEVEL)
