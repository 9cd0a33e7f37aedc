"""Layers as a Photoshop document.

psd-tools knows the format. Its high-level API would store the alpha of an opaque document as a mask, so the records are built here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import BinaryIO
from xml.etree import ElementTree

import numpy as np
from psd_tools.constants import BlendMode, ChannelID, ColorMode, Compression, Resource, Tag
from psd_tools.psd import PSD
from psd_tools.psd.header import FileHeader
from psd_tools.psd.image_data import ImageData
from psd_tools.psd.image_resources import ImageResource, ImageResources
from psd_tools.psd.layer_and_mask import (
    ChannelData,
    ChannelDataList,
    ChannelImageData,
    ChannelInfo,
    GlobalLayerMaskInfo,
    LayerAndMaskInformation,
    LayerFlags,
    LayerInfo,
    LayerRecord,
    LayerRecords,
)
from psd_tools.psd.tagged_blocks import TaggedBlocks

from ..errors import DiaphaneError
from ..pixels.blend import GRAIN
from ..pixels.composite import Layer, Layers
from .bytes import to_bytes

LONGEST_SIDE = 30_000
LONGEST_NAME = 255
MODES = {
    "normal": BlendMode.NORMAL,
    "multiply": BlendMode.MULTIPLY,
    "screen": BlendMode.SCREEN,
    "overlay": BlendMode.OVERLAY,
    "soft light": BlendMode.SOFT_LIGHT,
    "hard light": BlendMode.HARD_LIGHT,
    "add": BlendMode.LINEAR_DODGE,
    "darken": BlendMode.DARKEN,
    "lighten": BlendMode.LIGHTEN,
    "difference": BlendMode.DIFFERENCE,
    "exclusion": BlendMode.EXCLUSION,
    "colour dodge": BlendMode.COLOR_DODGE,
    "colour burn": BlendMode.COLOR_BURN,
    "linear burn": BlendMode.LINEAR_BURN,
    "vivid light": BlendMode.VIVID_LIGHT,
    "linear light": BlendMode.LINEAR_LIGHT,
    "pin light": BlendMode.PIN_LIGHT,
    "hard mix": BlendMode.HARD_MIX,
    "subtract": BlendMode.SUBTRACT,
    "divide": BlendMode.DIVIDE,
    "hue": BlendMode.HUE,
    "saturation": BlendMode.SATURATION,
    "colour": BlendMode.COLOR,
    "luminosity": BlendMode.LUMINOSITY,
}
CHANNELS = (ChannelID.CHANNEL_0, ChannelID.CHANNEL_1, ChannelID.CHANNEL_2, ChannelID.TRANSPARENCY_MASK)
NAMESPACES = {
    "x": "adobe:ns:meta/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "comfy": "https://www.comfy.org/ns/workflow/",
}


def write_psd(file: BinaryIO, layers: Layers, flat: np.ndarray, metadata: Mapping[str, str]) -> None:
    """Write the first picture of a batch of layers. flat: the same, flattened, [H, W, 3 or 4] in 0 to 255.

    Raises DiaphaneError for a picture or a layer that is larger than the format allows.
    """
    _check_size(layers)
    height, width, channels = flat.shape
    header = FileHeader(width=width, height=height, channels=channels, depth=8, color_mode=ColorMode.RGB)
    compressed = [_compressed(layer) for layer in layers.layers]
    # A negative count says that the fourth channel of the flat picture is its transparency.
    info = LayerInfo(
        layer_count=len(compressed) if channels == 3 else -len(compressed),
        layer_records=LayerRecords(_record(layer, data) for layer, data in zip(layers.layers, compressed, strict=True)),
        channel_image_data=ChannelImageData(compressed),
    )
    document = PSD(
        header=header,
        image_resources=_resources(metadata),
        layer_and_mask_information=LayerAndMaskInformation(info, GlobalLayerMaskInfo(), TaggedBlocks()),
        image_data=_merged(flat, header),
    )
    document.write(file)


def _check_size(layers: Layers) -> None:
    sizes = [(layers.height, layers.width), *(layer.image.shape[1:3] for layer in layers.layers)]
    longest = max(max(size) for size in sizes)
    if longest > LONGEST_SIDE:
        raise DiaphaneError(f"A PSD file holds at most {LONGEST_SIDE} pixels a side, got {longest}. Set format to OpenRaster.")


def _compressed(layer: Layer) -> ChannelDataList:
    """The four channels of the layer's first picture, 8 bits, run-length encoded."""
    pixels = to_bytes(layer.image[0])
    height, width = pixels.shape[:2]
    planes: list[np.ndarray] = [pixels[..., channel] for channel in range(pixels.shape[2])]
    channels = ChannelDataList()
    for plane in (*planes, np.full((height, width), 255, np.uint8))[: len(CHANNELS)]:
        channels.append(ChannelData(Compression.RLE))
        channels[-1].set_data(np.ascontiguousarray(plane).tobytes(), width, height, depth=8)
    return channels


def _record(layer: Layer, compressed: ChannelDataList) -> LayerRecord:
    height, width = layer.image.shape[1:3]
    name = layer.name[:LONGEST_NAME]
    record = LayerRecord(
        top=layer.y,
        left=layer.x,
        bottom=layer.y + height,
        right=layer.x + width,
        channel_info=[ChannelInfo(channel, len(data.data) + 2) for channel, data in zip(CHANNELS, compressed, strict=True)],
        blend_mode=BlendMode.NORMAL if layer.mode in GRAIN else MODES[layer.mode],
        opacity=round(layer.opacity * 255),
        flags=LayerFlags(visible=layer.visible),
        name=name.encode("macroman", errors="replace").decode("macroman"),
    )
    record.tagged_blocks.set_data(Tag.UNICODE_LAYER_NAME, name)
    return record


def _merged(flat: np.ndarray, header: FileHeader) -> ImageData:
    planes = [flat[..., channel] for channel in range(flat.shape[2])]
    if len(planes) == 4:
        # As Photoshop stores it: on white, with the transparency beside it.
        alpha = planes[3].astype(np.uint16)
        planes[:3] = [((plane * alpha + 127) // 255 + (255 - alpha)).astype(np.uint8) for plane in planes[:3]]
    data = ImageData(Compression.RLE)
    data.set_data([np.ascontiguousarray(plane).tobytes() for plane in planes], header)
    return data


def _resources(metadata: Mapping[str, str]) -> ImageResources:
    resources = ImageResources.new()
    if metadata:
        resources[Resource.XMP_METADATA] = ImageResource(key=Resource.XMP_METADATA, data=xmp(metadata))
    return resources


def xmp(metadata: Mapping[str, str]) -> bytes:
    """An XMP packet with one property in the namespace of ComfyUI for each text."""
    for prefix, address in NAMESPACES.items():
        ElementTree.register_namespace(prefix, address)
    root = ElementTree.Element(_name("x", "xmpmeta"))
    description = ElementTree.SubElement(ElementTree.SubElement(root, _name("rdf", "RDF")), _name("rdf", "Description"))
    description.set(_name("rdf", "about"), "")
    for key, text in metadata.items():
        ElementTree.SubElement(description, _name("comfy", re.sub(r"^(?=\d|$)|[^A-Za-z0-9_]", "_", key))).text = text
    packet = ElementTree.tostring(root, encoding="unicode")
    return f'<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n{packet}\n<?xpacket end="w"?>'.encode()


def _name(prefix: str, tag: str) -> str:
    return f"{{{NAMESPACES[prefix]}}}{tag}"
