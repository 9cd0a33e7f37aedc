"""Layers from an OpenRaster document (openraster.org, baseline 0.0.5, and what Krita, GIMP and MyPaint add), one in memory at a time."""

from __future__ import annotations

from functools import partial
from typing import BinaryIO
from xml.etree import ElementTree
from zipfile import ZipFile

from torch import Tensor

from ..errors import DiaphaneError
from ..pixels.blend import BLENDS, NORMAL
from .openraster import OPERATIONS
from .pictures import read_frames
from .tree import SAVE_AGAIN, UNKNOWN_MODE, Document, Notes, Part, check_size

STACK = "stack.xml"
LONGEST_STACK = 1 << 24  # bytes
# A layer that shows only where what is below it does: Krita's "inherit alpha".
ATOP = "src-atop"


def read_openraster(file: BinaryIO) -> Document:
    """The layers of a document, whose pixels are read from the file when they are needed.

    Nothing outside the archive is read, whatever names it holds. Raises DiaphaneError for what is not read; a damaged file may raise
    others.
    """
    return _Layers(ZipFile(file)).document()


def _plain(operation: str) -> str:
    """The name of an operation without its prefix, as all of them spell it: "krita:linear_burn" -> "linear-burn"."""
    return operation.rpartition(":")[2].replace("_", "-").replace(" ", "-").replace("colour", "color")


class _Layers:
    def __init__(self, archive: ZipFile):
        self.archive, self.notes = archive, Notes()
        self.modes = {_plain(mode): mode for mode in BLENDS} | {_plain(operation): mode for mode, operation in OPERATIONS.items()}

    def document(self) -> Document:
        image = ElementTree.fromstring(self._stack())
        height, width = (_number(image, side) for side in ("h", "w"))
        check_size(height, width)
        stack = image.find("stack")
        if stack is None:
            raise DiaphaneError(f"its {STACK} has no stack of layers. {SAVE_AGAIN}")
        return Document(height, width, self._parts(stack, 0, 0), self.notes)

    def _stack(self) -> bytes:
        if STACK not in self.archive.namelist():
            raise DiaphaneError(f"there is no {STACK} in it, so it is not an OpenRaster file. Export it as OpenRaster or PSD.")
        if self.archive.getinfo(STACK).file_size > LONGEST_STACK:
            raise DiaphaneError(f"its {STACK} is longer than any list of layers. {SAVE_AGAIN}")
        text = self.archive.read(STACK)
        if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
            raise DiaphaneError(f"its {STACK} has definitions of its own, which are not read. {SAVE_AGAIN}")
        return text

    def _parts(self, stack: ElementTree.Element, x: int, y: int) -> tuple[Part, ...]:
        """The layers and groups in a group at (x, y), the lowest first."""
        return tuple(self._part(element, x, y) for element in reversed(stack) if element.tag in ("layer", "stack"))

    def _part(self, element: ElementTree.Element, x: int, y: int) -> Part:
        x, y = x + _number(element, "x"), y + _number(element, "y")
        name, operation = element.get("name", ""), _plain(element.get("composite-op", OPERATIONS[NORMAL]))
        mode = self.modes.get(operation, NORMAL)
        if operation not in self.modes and operation != ATOP:
            self.notes.add(UNKNOWN_MODE, f"{name} ({operation})")
        opacity = min(max(float(element.get("opacity", 1.0)), 0.0), 1.0)
        is_group = element.tag == "stack"
        return Part(
            name=name,
            mode=mode,
            opacity=opacity,
            visible=element.get("visibility", "visible") != "hidden",
            clipped=operation == ATOP,
            passes_through=is_group and element.get("isolation") != "isolate" and mode == NORMAL and opacity == 1.0,
            picture=None if is_group else partial(self._picture, element.get("src", ""), x, y),
            parts=self._parts(element, x, y) if is_group else (),
        )

    def _picture(self, source: str, x: int, y: int) -> tuple[Tensor, int, int] | None:
        if source not in self.archive.namelist():
            raise DiaphaneError(f"the picture {source!r:.120} of one of its layers is missing. {SAVE_AGAIN}")
        with self.archive.open(source) as entry:
            return next(read_frames(entry))[None], x, y


def _number(element: ElementTree.Element, name: str) -> int:
    return int(float(element.get(name, 0)))
