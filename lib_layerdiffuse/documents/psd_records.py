"""What a Photoshop document says about its layers, PSD or PSB (Adobe Photoshop File Formats Specification).

Only what the layers need is read. An effect, a text or a linked picture in a file is skipped, whatever it holds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from ..errors import DiaphaneError
from .psd_channels import COLOURS
from .tree import SAVE_AGAIN, check_size

SIGNATURE = b"8BPS"
BLOCK, LONG_BLOCK = b"8BIM", b"8B64"
# Blocks whose length takes eight bytes in a PSB, whatever their signature.
LONG_KEYS = {b"LMsk", b"Lr16", b"Lr32", b"Layr", b"Mt16", b"Mt32", b"Mtrn", b"Alph", b"FMsk", b"lnk2", b"lnk3", b"lnkE", b"FEid"}
LONG_KEYS |= {b"FXid", b"FELS", b"PxSD", b"cinf", b"extn", b"artd", b"pths"}
DEEP_LAYERS = (b"Lr16", b"Lr32")
EFFECTS = (b"lfx2", b"lmfx", b"lfxs")
EFFECTS_ARE_OFF = b"masterFXSwitchbool\0"
FOLDER_BLOCKS = (b"lsct", b"lsdk")
PATHS = (b"vmsk", b"vsms")
SOLID = (b"Rd  doub", b"Grn doub", b"Bl  doub")  # in a description of a colour, each before a number from 0 to 255
TRANSPARENCY, MASK, WHOLE_MASK = -1, -2, -3  # the last: a mask of pixels and one of a path, together
HIDDEN, MASK_IS_OFF, MASK_HAS_SETTINGS = 2, 2, 16
PROFILE = 1039
TOO_SHORT = f"it ends too soon, or says that a part of it is longer than it is. {SAVE_AGAIN}"

Edges = tuple[int, int, int, int]  # top, left, bottom, right


class Reader:
    """Big-endian values from a part of a file."""

    def __init__(self, file: BinaryIO, end: int):
        self.file, self.start, self.end = file, file.tell(), end

    def left(self) -> int:
        return self.end - self.file.tell()

    def take(self, count: int) -> bytes:
        data = self.file.read(count) if 0 <= count <= self.left() else b""
        if len(data) != count:
            raise DiaphaneError(TOO_SHORT)
        return data

    def rest(self) -> bytes:
        return self.take(self.left())

    def values(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(f">{form}", self.take(struct.calcsize(f">{form}")))

    def part(self, form: str = "I") -> Reader:
        """What follows a length of that form, as long as it says."""
        [length] = self.values(form)
        if length > self.left():
            raise DiaphaneError(TOO_SHORT)
        return Reader(self.file, self.file.tell() + length)

    def finish(self, multiple: int = 1) -> None:
        """Go to the end, and on until the length is a multiple of that."""
        self.file.seek(self.end + -(self.end - self.start) % multiple)


@dataclass
class Record:
    """What is said about a layer, or about one end of a folder."""

    box: Edges
    lengths: dict[int, int]  # of each channel
    mode: bytes
    opacity: int
    clipped: bool
    hidden: bool
    name: str = ""
    fill: int = 255
    folder: int = 0
    has_effects: bool = False
    solid: tuple[float, ...] | None = None  # RGB of a layer that is filled with a colour
    has_path: bool = False
    mask_box: Edges = (0, 0, 0, 0)
    mask_outside: int = 0
    mask_is_off: bool = False
    mask_density: int = 255
    mask_is_feathered: bool = False
    starts: dict[int, int] = field(default_factory=dict)  # of each channel, in the file


class Photoshop:
    """A document: its size, its colours, and the records of its layers, the lowest first; none if it is flat.

    flat_start: where in the file the whole picture begins. Raises DiaphaneError for what is not read; a damaged file may raise others.
    """

    def __init__(self, file: BinaryIO):
        end = file.seek(0, 2)
        file.seek(0)
        self.reader = Reader(file, end)
        signature, self.version, self.count, self.height, self.width, self.depth, self.mode = self.reader.values("4sH6xHIIHH")
        if signature != SIGNATURE or self.version not in (1, 2):
            raise DiaphaneError(f"it is not a Photoshop document. {SAVE_AGAIN}")
        check_size(self.height, self.width)
        if self.mode not in COLOURS or self.depth not in (1, 8, 16, 32):
            raise DiaphaneError("its colour mode is not read here. Convert it to RGB in the paint program.")
        if self.count < COLOURS[self.mode]:
            raise DiaphaneError(f"it has fewer channels than its colours need. {SAVE_AGAIN}")
        self.palette = self.reader.part().rest()
        self.profile = _profile(self.reader.part())
        layers = self.reader.part(self._length())
        self.records = self._records(layers)
        layers.finish()
        self.flat_start = layers.end

    def _length(self) -> str:
        return "Q" if self.version == 2 else "I"

    def _records(self, layers: Reader) -> list[Record]:
        if layers.left() == 0:
            return []
        info = layers.part(self._length())
        if info.left():
            return self._list(info)
        # Those of 16 and 32 bits stand in a block of their own, after what is said about masks over the whole document.
        mark = layers.take(min(4, layers.left()))
        if mark in (BLOCK, LONG_BLOCK):
            layers.file.seek(-4, 1)
        else:
            layers.take(int.from_bytes(mark, "big"))
        for key, block in self._blocks(layers):
            if key in DEEP_LAYERS:
                return self._list(block)
        return []

    def _blocks(self, reader: Reader) -> Iterator[tuple[bytes, Reader]]:
        while reader.left() >= 12:
            signature = reader.take(4)
            if signature[0] == 0:  # padding, of which programs write more or less
                reader.file.seek(-3, 1)
                continue
            if signature not in (BLOCK, LONG_BLOCK):
                return
            key = reader.take(4)
            long = signature == LONG_BLOCK or (self.version == 2 and key in LONG_KEYS)
            block = reader.part("Q" if long else "I")
            yield key, block
            block.finish()

    def _list(self, info: Reader) -> list[Record]:
        [count] = info.values("h")
        records = [self._record(info) for _ in range(abs(count))]
        at = info.file.tell()
        for record in records:
            for channel, length in record.lengths.items():
                record.starts[channel] = at
                at += length
        if at > info.end:
            raise DiaphaneError(TOO_SHORT)
        return records

    def _record(self, info: Reader) -> Record:
        top, left, bottom, right, channels = info.values("4iH")
        lengths = dict(info.values(f"h{self._length()}") for _ in range(channels))
        signature, mode, opacity, clipped, flags = info.values("4s4sBBBx")
        if signature != BLOCK:
            raise DiaphaneError(f"the list of its layers is damaged. {SAVE_AGAIN}")
        record = Record((top, left, bottom, right), lengths, mode, opacity, bool(clipped), bool(flags & HIDDEN))
        more = info.part()
        _read_mask(record, more.part())
        more.part().finish()  # blending ranges
        [length] = more.values("B")
        record.name = more.take(length).decode("mac_roman")
        more.take(-(length + 1) % 4)
        for key, block in self._blocks(more):
            _read_block(record, key, block)
        more.finish()
        return record


def _profile(resources: Reader) -> bytes:
    found = b""
    while resources.left() >= 12:
        _, key, name = resources.values("4sHB")
        resources.take(name + (name + 1) % 2)
        data = resources.part()
        found = data.rest() if key == PROFILE else found
        data.finish(2)
    resources.finish()
    return found


def _read_mask(record: Record, mask: Reader) -> None:
    if mask.left() >= 18:
        top, left, bottom, right, outside, flags = mask.values("4iBB")
        if WHOLE_MASK in record.lengths and mask.left() >= 18:
            flags, outside, top, left, bottom, right = mask.values("BB4i")
        elif flags & MASK_HAS_SETTINGS and mask.left():
            [settings] = mask.values("B")
            if settings & 1:
                [record.mask_density] = mask.values("B")
            if settings & 2:
                record.mask_is_feathered = mask.values("d")[0] > 0.0
        record.mask_box, record.mask_outside, record.mask_is_off = (top, left, bottom, right), outside, bool(flags & MASK_IS_OFF)
    mask.finish()


def _read_block(record: Record, key: bytes, block: Reader) -> None:
    if key == b"luni":
        record.name = block.take(2 * block.values("I")[0]).decode("utf-16-be", errors="replace").rstrip("\0")
    elif key == b"iOpa":
        [record.fill] = block.values("B")
    elif key in FOLDER_BLOCKS:
        [record.folder] = block.values("I")
        if block.left() >= 8:
            record.mode = block.values("4s4s")[1]
    elif key == b"SoCo":
        record.solid = _solid_colour(block.rest())
    elif key in PATHS:
        record.has_path = True
    elif key in EFFECTS and EFFECTS_ARE_OFF not in block.rest():
        record.has_effects = True


def _solid_colour(description: bytes) -> tuple[float, ...] | None:
    places = [description.find(name) for name in SOLID]
    return None if -1 in places else tuple(struct.unpack_from(">d", description, at + 8)[0] / 255.0 for at in places)
