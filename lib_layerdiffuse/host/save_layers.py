"""Layers to files in ComfyUI's output folder: names, metadata, and whole files or none."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
from comfy.cli_args import args
from PIL import Image

from ..errors import DiaphaneError
from ..pixels.composite import Layers, common_batch
from .flat_picture import flat_bytes, reduced, to_bytes
from .openraster import COMPRESS_LEVEL, text_chunks, write_openraster

PSD = "PSD"
OPENRASTER = "OpenRaster"
PNG = "PNG"
FORMATS = (PSD, OPENRASTER, PNG)
PREVIEW_SIDE = 1024

Metadata = Mapping[str, str]
Result = dict[str, str]
Writer = Callable[[BinaryIO, Layers, np.ndarray, Metadata], None]


def save_layers(layers: Layers, form: str, prefix: str, metadata: Metadata) -> dict[str, list[Result]]:
    """Save each picture of the batch, as a document or as one PNG per layer; what the frontend is to list, by the kind of output.

    prefix: as in Save Image; it never leads out of the output folder. Documents come with a preview, since browsers show none;
    like them it holds the metadata, so that it can be dropped into ComfyUI.
    """
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
        prefix, folder_paths.get_output_directory(), layers.width, layers.height
    )
    count = common_batch([layer.image for layer in layers.layers])
    progress = comfy.utils.ProgressBar(count)
    files: list[Result] = []
    previews: list[Result] = []
    for index in range(count):
        comfy.model_management.throw_exception_if_processing_interrupted()
        stem = f"{name.replace('%batch_num%', str(index))}_{counter + index:05}"
        picture = layers.one(index)
        if form == PNG:
            files += [_result(path, subfolder, "output") for path in _save_pngs(Path(folder), stem, picture, metadata)]
        else:
            path = Path(folder, f"{stem}_.{'psd' if form == PSD else 'ora'}")
            flat = flat_bytes(picture)
            with whole_file(path) as file:
                _writer(form)(file, picture, flat, metadata)
            files.append(_result(path, subfolder, "output"))
            previews.append(_save_preview(stem, flat, metadata))
        progress.update(1)
    return {"images": files} if form == PNG else {"images": previews, "files": files}


def workflow_metadata(prompt: Any, extra: Mapping[str, Any] | None) -> dict[str, str]:
    """What ComfyUI's own nodes write into the pictures that they save; nothing if it was started with --disable-metadata."""
    if args.disable_metadata:
        return {}
    found = {} if prompt is None else {"prompt": prompt}
    return {key: json.dumps(value) for key, value in {**found, **(extra or {})}.items()}


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name only once it is complete; nothing is left over otherwise."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w+b") as file:
            yield file
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _writer(form: str) -> Writer:
    if form == OPENRASTER:
        return write_openraster
    try:
        from .psd import write_psd  # psd-tools takes a while to import
    except ModuleNotFoundError as error:
        raise DiaphaneError(
            f"PSD files need the Python package psd-tools, but {error.name} is missing. Install Diaphane's requirements.txt, "
            "or set format to OpenRaster."
        ) from error
    return write_psd


def _save_pngs(folder: Path, stem: str, layers: Layers, metadata: Metadata) -> list[Path]:
    """One picture per layer, numbered from the lowest, with all that a PNG can hold of its place."""
    paths = []
    for number, layer in enumerate(layers.layers, start=1):
        place = {"x": layer.x, "y": layer.y, "width": layers.width, "height": layers.height}
        settings = {**place, "mode": layer.mode, "opacity": layer.opacity}
        chunks = text_chunks(metadata)
        chunks.add_itxt("Title", layer.name)
        chunks.add_text("layer", json.dumps(settings))
        chunks.add(b"oFFs", struct.pack(">iiB", layer.x, layer.y, 0))  # in pixels
        path = folder / f"{stem}_{number:02}.png"
        with whole_file(path) as file:
            Image.fromarray(to_bytes(layer.image[0])).save(file, "PNG", pnginfo=chunks, compress_level=COMPRESS_LEVEL)
        paths.append(path)
    return paths


def _save_preview(stem: str, flat: np.ndarray, metadata: Metadata) -> Result:
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(f"{stem}_preview", folder_paths.get_temp_directory())
    path = Path(folder, f"{name}_{counter:05}_.png")
    reduced(flat, PREVIEW_SIDE).save(path, pnginfo=text_chunks(metadata), compress_level=1)
    return _result(path, subfolder, "temp")


def _result(path: Path, subfolder: str, kind: str) -> Result:
    return {"filename": path.name, "subfolder": subfolder, "type": kind}
