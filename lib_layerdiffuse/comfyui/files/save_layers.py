"""Layers to files in ComfyUI's output folder."""

from __future__ import annotations

import itertools
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
from PIL import Image

from ...documents.bytes import flat_bytes, layer_bytes, reduced, to_bytes
from ...documents.openraster import write_openraster
from ...documents.png import COMPRESS_LEVEL, text_chunks
from ...errors import DiaphaneError
from ...pixels.composite import PHOTOSHOP, Layers, common_batch
from .output_files import Metadata, Result, explaining, listed, output_place, whole_file, whole_files

PSD = "PSD"
OPENRASTER = "OpenRaster"
PNG = "PNG"
FORMATS = (PSD, OPENRASTER, PNG)
PREVIEW_SIDE = 1024
LAYER_SIDE = 2048  # of the pictures of layers, which ComfyUI's layer editor opens
FARTHEST = 1 << 30  # pixels from the canvas's corner to a layer, which files hold in 32 bits
LONGEST_NAME = 200  # bytes of a file name, of which there may be 255
# What no file name holds on one system or another, the names of Windows' devices, and two dots, which ComfyUI does not serve.
IMPOSSIBLE = re.compile(r'[\x00-\x1f<>:"/\\|?*]|\.(?=\.)|^(?=(?:con|prn|aux|nul|com\d|lpt\d) *(?:\.|$))', re.IGNORECASE)

Writer = Callable[[BinaryIO, Layers, np.ndarray, Metadata], None]


def save_layers(layers: Layers, form: str, prefix: str, metadata: Metadata, blending: str = PHOTOSHOP) -> dict[str, list[Result]]:
    """Save each picture of the batch, as a document or as one PNG per layer; what the frontend is to list, by the kind of output.

    prefix: as in Save Image; it never leads out of the output folder. The node shows each layer in its place, as ComfyUI's layer editor
    opens them, or the finished pictures, if there is a batch of them. What it shows holds the metadata, so that it can be dropped into
    ComfyUI. blending: of the finished pictures, see `composite`. Raises DiaphaneError for a layer too far away, and if the disk is full
    or may not be written; of the picture that could not be saved nothing is left.
    """
    for layer in layers.layers:
        if max(abs(layer.x), abs(layer.y)) > FARTHEST:
            raise DiaphaneError(f"{layer.name} lies at x {layer.x:.3g}, y {layer.y:.3g}: no file holds that. Change it where it is placed.")
    folder, name, counter, subfolder = output_place(prefix, layers.width, layers.height)
    count = common_batch([layer.image for layer in layers.layers])
    progress = comfy.utils.ProgressBar(count)
    files: list[Result] = []
    shown: list[Result] = []
    for index in range(count):
        comfy.model_management.throw_exception_if_processing_interrupted()
        stem = f"{name.replace('%batch_num%', str(index))}_{counter + index:05}"
        picture = layers.one(index)
        flat = None if form == PNG else flat_bytes(picture, blending)
        with explaining(folder):
            if flat is None:
                paths = _save_pngs(folder, stem, picture, metadata)
            else:
                paths = [folder / f"{stem}_.{'psd' if form == PSD else 'ora'}"]
                write = _writer(form)
                with whole_file(paths[0]) as file:
                    write(file, picture, flat, metadata)
        files += [listed(path, subfolder) for path in paths]
        if count == 1 and len(layers.layers) > 1:
            shown += _show_layers(stem, picture, metadata)
        else:
            shown.append(_show(stem, flat_bytes(picture, blending) if flat is None else flat, metadata))
        progress.update(1)
    return {"images": shown, "files": files}


def _writer(form: str) -> Writer:
    if form == OPENRASTER:
        return write_openraster
    try:
        from ...documents.psd import write_psd  # psd-tools takes a while to import
    except ModuleNotFoundError as error:
        raise DiaphaneError(
            f"PSD files need the Python package psd-tools, but {error.name} is missing. Install Diaphane's requirements.txt, "
            "or set format to OpenRaster."
        ) from error
    return write_psd


def _save_pngs(folder: Path, stem: str, layers: Layers, metadata: Metadata) -> list[Path]:
    """One picture per layer, numbered from the lowest, with all that a PNG can hold of its place. All of them appear, or none."""
    paths = [folder / f"{stem}_{number:02}.png" for number in range(1, len(layers.layers) + 1)]
    with whole_files(*paths) as files:
        for file, layer in zip(files, layers.layers, strict=True):
            comfy.model_management.throw_exception_if_processing_interrupted()
            place = {"x": layer.x, "y": layer.y, "width": layers.width, "height": layers.height}
            settings = {**place, "mode": layer.mode, "opacity": layer.opacity, "visible": layer.visible}
            chunks = text_chunks(metadata)
            chunks.add_itxt("Title", layer.name)
            chunks.add_text("layer", json.dumps(settings))
            chunks.add(b"oFFs", struct.pack(">iiB", layer.x, layer.y, 0))  # in pixels
            Image.fromarray(to_bytes(layer.image[0])).save(file, "PNG", pnginfo=chunks, compress_level=COMPRESS_LEVEL)
            file.flush()  # a disk that is full shows here, before the first of them has its name
    return paths


def _show(stem: str, flat: np.ndarray, metadata: Metadata) -> Result:
    temporary = folder_paths.get_temp_directory()
    with explaining(temporary):
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(f"{stem}_preview", temporary)
        path = Path(folder, f"{name}_{counter:05}_.png")
        _save_reduced(path, flat, PREVIEW_SIDE, metadata)
    return listed(path, subfolder, "temp")


def _show_layers(stem: str, layers: Layers, metadata: Metadata) -> list[Result]:
    """A picture of the canvas for each layer, the lowest first. The editor puts them over one another and calls them by their files."""
    temporary = folder_paths.get_temp_directory()
    shown = []
    with explaining(temporary):
        # A folder of its own, so that the files have the names of the layers alone.
        _, name, counter, *_ = folder_paths.get_save_image_path(f"{stem}_layers", temporary)
        folder, _, _, subfolder, _ = folder_paths.get_save_image_path(f"{name}_{counter:05}_/{name}", temporary)
        for layer, name in zip(layers.layers, file_names(layers), strict=True):
            path = Path(folder, f"{name}.png")
            _save_reduced(path, layer_bytes(layer, layers.height, layers.width), LAYER_SIDE, metadata)
            shown.append(listed(path, subfolder, "temp"))
    return shown


def _save_reduced(path: Path, flat: np.ndarray, side: int, metadata: Metadata) -> None:
    with whole_file(path) as file:
        reduced(flat, side).save(file, "PNG", pnginfo=text_chunks(metadata), compress_level=1)


def file_names(layers: Layers) -> list[str]:
    """The names of the layers, as files can have them: each is another, whatever the case of its letters."""
    names: list[str] = []
    for layer in layers.layers:
        name = re.sub(IMPOSSIBLE, "_", layer.name + (" (hidden)" if not layer.visible else ""))
        name = name.encode()[:LONGEST_NAME].decode(errors="ignore").strip(" .") or "_"
        taken = {other.casefold() for other in names}
        possible = itertools.chain([name], (f"{name} ({number})" for number in itertools.count(2)))
        names.append(next(one for one in possible if one.casefold() not in taken))
    return names
