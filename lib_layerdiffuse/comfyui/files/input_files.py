"""Layered files and pictures that artists give. Nothing outside ComfyUI's folders input, output and temp is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import folder_paths
import torch
from comfy.model_management import InterruptProcessingException, throw_exception_if_processing_interrupted
from torch import Tensor

from ...documents.pictures import read_frames
from ...documents.read_openraster import read_openraster
from ...documents.tree import SAVE_AGAIN, Document
from ...errors import DiaphaneError
from ...pixels.composite import Layers
from ...pixels.straight import with_alpha

DOCUMENTS = (".psd", ".psb", ".ora")
PICTURES = (".png", ".apng", ".webp", ".gif", ".avif", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".tga")
SCRAPS = "clipspace"  # where ComfyUI's mask editor leaves its pictures
PHOTOSHOP, ZIP = b"8BPS", b"PK"


def document_choices() -> list[str]:
    """Layered files below input, and those below output, which a name's ending says."""
    saved = (f"{name} [output]" for name in _below(folder_paths.get_output_directory(), DOCUMENTS))
    return [*_below(folder_paths.get_input_directory(), DOCUMENTS), *saved]


def picture_choices() -> list[str]:
    """Pictures below input."""
    return _below(folder_paths.get_input_directory(), PICTURES)


def folder_choices() -> list[str]:
    """Folders below input with pictures in them."""
    return sorted({name.rpartition("/")[0] for name in picture_choices()} - {""})


def _below(root: str, endings: tuple[str, ...]) -> list[str]:
    """Files with these endings, by their way from a folder."""
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and name != SCRAPS]
        found += [Path(folder, name).relative_to(root).as_posix() for name in names if name.lower().endswith(endings)]
    return sorted(found)


def find_document(name: Any) -> Path:
    return _find(name, DOCUMENTS)


def find_picture(name: Any) -> Path:
    return _find(name, PICTURES)


def find_pictures(folder: Any) -> list[Path]:
    """The pictures in a folder below input, by their names."""
    paths = [_find(name, PICTURES) for name in picture_choices() if name.rpartition("/")[0] == folder]
    if not paths:
        raise DiaphaneError(
            f"There are no pictures in a folder {folder!r:.120} of the input folder. Choose another one, or put them there."
        )
    return paths


def _find(name: Any, endings: tuple[str, ...]) -> Path:
    """The file that a widget names: below input, or where the name's ending [input], [output] or [temp] says, never outside."""
    try:
        plain, folder = folder_paths.annotated_filepath(name)
        root = Path(folder or folder_paths.get_input_directory()).resolve()
        path = Path(root, plain).resolve()
        if path.is_relative_to(root) and path.name.lower().endswith(endings) and path.is_file():
            return path
    except (AttributeError, OSError, TypeError, ValueError):  # no text, or none that a file can be called by
        pass
    raise DiaphaneError(f"There is no file {name!r:.120} ({', '.join(endings)}) in the input folder. Choose another one, or upload it.")


def fingerprint(paths: list[Path]) -> list[tuple[str, int, int]]:
    """Changes when a file does, or when others are there."""
    return [(path.name, status.st_mtime_ns, status.st_size) for path in paths for status in [path.stat()]]


def load_layers(path: Path, groups: str) -> tuple[Layers, list[str]]:
    """The layers of a file, and what of it could not be kept. groups: one of `tree.GROUPS`. Raises DiaphaneError if it cannot be read."""
    with _reading(path) as file:
        document = _read_document(file)
        document.before_each = throw_exception_if_processing_interrupted
        return document.layers(groups), document.notes.lines()


def _read_document(file: BinaryIO) -> Document:
    mark = file.read(4)
    file.seek(0)
    if mark[:2] == ZIP:
        return read_openraster(file)
    if mark != PHOTOSHOP:
        raise DiaphaneError("it is neither a Photoshop nor an OpenRaster file. Export it as one of them.")
    try:
        from ...documents.read_psd import read_psd

        return read_psd(file)
    except ModuleNotFoundError as error:
        raise DiaphaneError(
            f"PSD files need the Python package psd-tools, but {error.name} is missing. Install Diaphane's requirements.txt, "
            "or save it as OpenRaster."
        ) from error


def load_picture(path: Path) -> tuple[Tensor, bool]:
    """The frames of a picture [F, H, W, 4], straight alpha, and whether it had alpha. Raises DiaphaneError if it cannot be read."""
    throw_exception_if_processing_interrupted()
    with _reading(path) as file:
        frames = list(read_frames(file))
        has_alpha = any(frame.shape[-1] == 4 for frame in frames)
        return torch.cat([with_alpha(frame[None]) for frame in frames]), has_alpha


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    """An open file. Whatever goes wrong in the block is said in a sentence that names it."""
    name = "".join(filter(str.isprintable, path.name))
    try:
        with path.open("rb") as file:
            yield file
    except DiaphaneError as error:
        raise DiaphaneError(f"{name}: {error}") from error
    except InterruptProcessingException:  # an Exception in older versions of ComfyUI
        raise
    except Exception as error:  # a damaged file makes those who decode it raise anything
        raise DiaphaneError(
            f"{name} cannot be read: it is damaged, of another kind than its name says, or too large for the memory. {SAVE_AGAIN}"
        ) from error
