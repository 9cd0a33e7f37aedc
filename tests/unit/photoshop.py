"""Photoshop documents from bytes, by the specification and without the code under test or psd-tools."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

import numpy as np

RAW, RLE, ZIP, ZIP_PREDICTED = range(4)
TYPES = {8: ">u1", 16: ">u2", 32: ">f4"}


@dataclass
class Layer:
    """channels: {id: [H, W] in 0 to 1}; one entry of `mask` is (top, left, [H, W], outside, flags, what follows)."""

    channels: dict[int, np.ndarray]
    name: str = "layer"
    at: tuple[int, int] = (0, 0)  # top, left
    mode: bytes = b"norm"
    opacity: int = 255
    clipped: bool = False
    hidden: bool = False
    mask: tuple[int, int, np.ndarray, int, int, bytes] | None = None
    blocks: list[tuple[bytes, bytes]] = field(default_factory=list)


def group(name: str, layers: list[Layer], mode: bytes = b"pass", **more: object) -> list[Layer]:
    """A folder's layers between its two ends."""
    end = Layer({}, "</Layer group>", blocks=[(b"lsct", struct.pack(">I", 3))])
    start = Layer({}, name, mode=mode, blocks=[(b"lsct", struct.pack(">I4s4s", 1, b"8BIM", mode))], **more)  # type: ignore[arg-type]
    return [end, *layers, start]


def document(
    layers: list[Layer],
    size: tuple[int, int],
    depth: int = 8,
    mode: int = 3,
    compression: int = RAW,
    version: int = 1,
    flat: list[np.ndarray] | None = None,
    palette: bytes = b"",
    profile: bytes = b"",
) -> bytes:
    """A file. flat: the channels of the whole picture, three black ones unless given."""
    height, width = size
    flat = [np.zeros(size)] * 3 if flat is None else flat
    long = "Q" if version == 2 else "I"
    records, pixels = b"", b""
    for layer in layers:
        record, data = _layer(layer, depth, compression, version)
        records, pixels = records + record, pixels + data
    info = struct.pack(">h", len(layers)) + records + pixels
    info += bytes(-len(info) % 4)
    if depth > 8:  # in a block, after an empty list and no mask over the whole document
        key = b"Lr16" if depth == 16 else b"Lr32"
        section = struct.pack(f">{long}I4s4s{long}", 0, 0, b"8BIM", key, len(info)) + info
    else:
        section = struct.pack(f">{long}", len(info)) + info + struct.pack(">I", 0)
    section = section if layers else b""
    resources = b"8BIM" + struct.pack(">HHI", 1039, 0, len(profile)) + profile + bytes(len(profile) % 2) if profile else b""
    head = struct.pack(">4sH6xHIIHH", b"8BPS", version, len(flat), height, width, depth, mode)
    head += struct.pack(">I", len(palette)) + palette + struct.pack(">I", len(resources)) + resources
    return head + struct.pack(f">{long}", len(section)) + section + packed(np.concatenate(flat), depth, compression, version)


def _layer(layer: Layer, depth: int, compression: int, version: int) -> tuple[bytes, bytes]:
    planes = {key: packed(plane, depth, compression, version) for key, plane in layer.channels.items()}
    mask = b""
    if layer.mask:
        top, left, plane, outside, flags, more = layer.mask
        planes[-2] = packed(plane, depth, compression, version)
        mask = struct.pack(">4iBB", top, left, top + plane.shape[0], left + plane.shape[1], outside, flags) + (more or bytes(2))
    (height, width), (top, left) = next(iter(layer.channels.values()), np.zeros((0, 0))).shape, layer.at
    record = struct.pack(">4iH", top, left, top + height, left + width, len(planes))
    record += b"".join(struct.pack(">hQ" if version == 2 else ">hI", key, len(data)) for key, data in planes.items())
    record += struct.pack(">4s4sBBBx", b"8BIM", layer.mode, layer.opacity, layer.clipped, 2 * layer.hidden)
    short = layer.name.encode("ascii", "replace")[:255]
    more = struct.pack(">I", len(mask)) + mask + struct.pack(">I", 0) + bytes([len(short)]) + short + bytes(-(len(short) + 1) % 4)
    name = layer.name.encode("utf-16-be")
    for key, data in [(b"luni", struct.pack(">I", len(name) // 2) + name), *layer.blocks]:
        more += b"8BIM" + key + struct.pack(">I", len(data)) + data
    return record + struct.pack(">I", len(more)) + more, b"".join(planes.values())


def packed(plane: np.ndarray, depth: int, compression: int, version: int) -> bytes:
    """A channel with its compression in front."""
    if depth == 1:
        rows = np.packbits(plane < 0.5, axis=1)
    else:
        scale = {8: 255, 16: 65535, 32: 1}[depth]
        values = (np.round(plane * scale) if depth < 32 else plane).astype(TYPES[depth])
        if compression == ZIP_PREDICTED and depth == 32:
            planes = np.ascontiguousarray(values).view(np.uint8).reshape(*plane.shape, 4).swapaxes(1, 2).reshape(len(plane), -1)
            values = np.diff(planes, axis=1, prepend=np.uint8(0))
        elif compression == ZIP_PREDICTED:
            values = np.diff(values.astype(values.dtype.newbyteorder("=")), axis=1, prepend=values.dtype.type(0)).astype(TYPES[depth])
        rows = np.ascontiguousarray(values).view(np.uint8).reshape(len(plane), -1)
    if compression == RLE:
        runs = [_runs(row.tobytes()) for row in rows]
        data = b"".join(struct.pack(">I" if version == 2 else ">H", len(run)) for run in runs) + b"".join(runs)
    else:
        data = rows.tobytes() if compression == RAW else zlib.compress(rows.tobytes())
    return struct.pack(">H", compression) + data


def _runs(row: bytes) -> bytes:
    """PackBits: equal bytes as a run, others as they are; a run of nothing, which is to be skipped, first."""
    result, start = b"\x80", 0
    while start < len(row):
        end = start + 1
        while end < len(row) and row[end] == row[start] and end - start < 128:
            end += 1
        result += bytes([257 - (end - start), row[start]]) if end - start > 1 else bytes([0, row[start]])
        start = end
    return result
