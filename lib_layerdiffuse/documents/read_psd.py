"""Layers from a Photoshop document, one in memory at a time."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from ..pixels.blend import NORMAL
from .psd_channels import CMYK, COLOURS, LAB, LINEAR_DEPTH, RGB, decode, profile_name, to_rgb
from .psd_records import MASK, TRANSPARENCY, WHOLE_MASK, Edges, Photoshop, Record
from .tree import UNKNOWN_MODE, Document, Mask, Notes, Part, check_size

LOWEST_OF_FOLDER = 3  # a folder's own record follows its layers
PASS_THROUGH = b"pass"

# What cannot be kept.
EFFECTS_LEFT_OUT = "Layer effects are not applied (rasterize them in the paint program)"
FEATHER = "The feather of a mask is not applied"
LINEAR = "32 bits, linear light: brought to sRGB, what is brighter than white is cut"
OTHER_COLOURS = "The colours are of another profile than sRGB and are taken as they are (convert to sRGB in the paint program)"
CONVERTED = "Colours are brought to sRGB from"
FLAT = "There are no layers in it: the whole picture is one"
FLAT_ALPHA = "Its fourth channel is taken as its transparency"


def read_psd(file: BinaryIO) -> Document:
    """The layers of a document, whose pixels are read from the file when they are needed.

    Raises DiaphaneError for what is not read; a damaged file may raise others.
    """
    return _Layers(Photoshop(file)).document()


class _Layers:
    def __init__(self, file: Photoshop):
        self.file, self.notes = file, Notes()

    def document(self) -> Document:
        self._say_what_becomes_of_colours()
        parts = self._tree(self.file.records) if self.file.records else (self._flat(),)
        return Document(self.file.height, self.file.width, parts, self.notes)

    def _say_what_becomes_of_colours(self) -> None:
        name, mode = profile_name(self.file.profile), self.file.mode
        if mode in (CMYK, LAB):
            self.notes.add(CONVERTED, "Lab" if mode == LAB else name or "CMYK without a profile")
        elif self.file.depth == LINEAR_DEPTH:
            self.notes.add(LINEAR)
        elif mode == RGB and name and "srgb" not in name.lower():
            self.notes.add(OTHER_COLOURS, name)

    def _tree(self, records: list[Record]) -> tuple[Part, ...]:
        folders: list[list[Part]] = [[]]
        for record in records:
            if record.folder == LOWEST_OF_FOLDER:
                folders.append([])
            elif record.folder:
                parts = folders.pop() if len(folders) > 1 else []
                folders[-1].append(replace(self._part(record), parts=tuple(parts)))
            else:
                folders[-1].append(replace(self._part(record), picture=partial(self._picture, record)))
        return tuple(part for folder in folders for part in folder)

    def _part(self, record: Record) -> Part:
        has_mask = (MASK in record.lengths or WHOLE_MASK in record.lengths) and not record.mask_is_off
        if record.has_effects:
            self.notes.add(EFFECTS_LEFT_OUT, record.name)
        if has_mask and record.mask_is_feathered:
            self.notes.add(FEATHER, record.name)
        return Part(
            name=record.name,
            mode=self._mode(record),
            opacity=record.opacity / 255.0 * record.fill / 255.0,
            visible=not record.hidden,
            clipped=record.clipped,
            passes_through=record.mode == PASS_THROUGH,
            mask=partial(self._mask, record) if has_mask else None,
        )

    def _mode(self, record: Record) -> str:
        from .psd import MODES  # psd-tools takes a while to import

        found = {mode.value: name for name, mode in MODES.items()}.get(record.mode)
        if found is None and record.mode != PASS_THROUGH:
            self.notes.add(UNKNOWN_MODE, f"{record.name} ({record.mode.decode('ascii', errors='replace').strip()})")
        return found or NORMAL

    def _picture(self, record: Record) -> tuple[Tensor, int, int] | None:
        top, left, bottom, right = record.box
        colours = range(COLOURS[self.file.mode])
        if top >= bottom or left >= right or any(record.lengths.get(channel, 0) <= 2 for channel in colours):
            return self._filled(record)
        planes = [self._channel(record, channel, record.box) for channel in colours]
        alpha = self._channel(record, TRANSPARENCY, record.box) if TRANSPARENCY in record.lengths else None
        return self._image(planes, alpha), left, top

    def _filled(self, record: Record) -> tuple[Tensor, int, int] | None:
        """A layer without pixels that is one colour all over; not a shape, whose path would have to be drawn."""
        if record.solid is None or record.has_path:
            return None
        return torch.tensor(record.solid).clamp(0.0, 1.0).repeat(1, self.file.height, self.file.width, 1), 0, 0

    def _mask(self, record: Record) -> Mask:
        top, left, bottom, right = record.mask_box
        channel = WHOLE_MASK if WHOLE_MASK in record.lengths else MASK
        empty = top >= bottom or left >= right or record.lengths[channel] <= 2
        values = np.zeros((0, 0), np.float32) if empty else self._channel(record, channel, record.mask_box)
        density = record.mask_density / 255.0
        outside = 1.0 - density * (1.0 - record.mask_outside / 255.0)
        return Mask(torch.from_numpy(1.0 - density * (1.0 - values))[None], left, top, outside)

    def _channel(self, record: Record, channel: int, box: Edges) -> np.ndarray:
        top, left, bottom, right = box
        check_size(bottom - top, right - left)
        self.file.reader.file.seek(record.starts[channel])
        data = self.file.reader.take(record.lengths[channel])
        return decode(data, bottom - top, right - left, self.file.depth, self.file.version)

    def _image(self, planes: list[np.ndarray], alpha: np.ndarray | None) -> Tensor:
        rgb = to_rgb(planes, self.file.mode, self.file.depth, self.file.profile, self.file.palette)
        return torch.from_numpy(np.stack(rgb if alpha is None else [*rgb, alpha], axis=-1))[None]

    def _flat(self) -> Part:
        """The whole picture of a document without layers."""
        colours, file = COLOURS[self.file.mode], self.file
        self.notes.add(FLAT)
        if file.count > colours:
            self.notes.add(FLAT_ALPHA)

        def picture() -> tuple[Tensor, int, int]:
            check_size(file.height * file.count, file.width)
            file.reader.file.seek(file.flat_start)
            values = decode(file.reader.rest(), file.height * file.count, file.width, file.depth, file.version)
            planes = values.reshape(file.count, file.height, file.width)
            return self._image(list(planes[:colours]), planes[colours] if file.count > colours else None), 0, 0

        return Part("", picture=picture)
