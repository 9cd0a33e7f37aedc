"""Load Transparent Image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..lib_layerdiffuse.comfyui.files.input_files import (
    find_picture,
    find_pictures,
    fingerprint,
    folder_choices,
    load_picture,
    picture_choices,
)
from ..lib_layerdiffuse.comfyui.files.previews import preview_pictures
from ..lib_layerdiffuse.comfyui.messages import notes
from ..lib_layerdiffuse.pixels.clipping import on_canvas
from ..lib_layerdiffuse.pixels.composite import Layer
from ..lib_layerdiffuse.pixels.straight import transparency_mask
from . import inputs

NO_FOLDER = "none"
LIST = "list"
BATCH = "batch"


class LoadTransparentImage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneLoadTransparent",
            display_name="Load Transparent Image",
            category=inputs.CATEGORY,
            description="Loads a picture with its alpha as one RGBA image, which Load Image takes apart; an animation as a batch, or all "
            "pictures of a folder.",
            search_aliases=[
                *inputs.ALIASES,
                "load PNG",
                "load image with alpha",
                "load RGBA",
                "load PNG with alpha",
                "load folder",
                "folder",
                "directory",
                "load batch",
                "APNG",
                "GIF",
                "16 bit",
                "sprite",
            ],
            inputs=[
                inputs.FileChoice(
                    "image",
                    options=picture_choices(),
                    upload=io.UploadType.image,
                    tooltip="A picture in ComfyUI's input folder: PNG (16 bits, too), WebP, GIF and others. An animation becomes a batch.",
                ),
                inputs.FileChoice(
                    "folder",
                    options=[NO_FOLDER, *folder_choices()],
                    default=NO_FOLDER,
                    tooltip="A folder in ComfyUI's input folder: all pictures in it, in place of the one above.",
                ),
                io.Combo.Input(
                    "folder_as",
                    options=[LIST, BATCH],
                    default=LIST,
                    advanced=True,
                    tooltip="list: what follows runs once per picture. batch: all at once, smaller ones with transparent margins.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image",
                    is_output_list=True,
                    tooltip="RGBA [B, H, W, 4], straight alpha, with the colour under transparent pixels. For a folder a list.",
                ),
                io.Mask.Output(display_name="mask", is_output_list=True, tooltip="Transparency of image [B, H, W], 1 = transparent."),
                io.String.Output(display_name="name", is_output_list=True, tooltip="Name of the file without its ending."),
            ],
        )

    @classmethod
    def validate_inputs(cls, image: Any = None, folder: Any = None) -> bool | str:
        return inputs.is_there(lambda: _paths(image, folder), image, folder)

    @classmethod
    def fingerprint_inputs(cls, image: Any = None, folder: Any = None, **others: Any) -> Any:
        return fingerprint(_paths(image, folder))

    @classmethod
    def execute(cls, image: str, folder: str, folder_as: str) -> io.NodeOutput:
        paths = _paths(image, folder)
        loaded = [load_picture(path) for path in paths]
        pictures, names, said = [picture for picture, _ in loaded], [path.stem for path in paths], []
        opaque = [name for name, (_, has_alpha) in zip(names, loaded, strict=True) if not has_alpha]
        if opaque:
            said.append(f"Without alpha and so opaque: {', '.join(opaque):.200}. For a cut-out, take the background off first.")
        if folder != NO_FOLDER and folder_as == BATCH:
            height, width = (max(picture.shape[side] for picture in pictures) for side in (1, 2))
            if any(picture.shape[1:3] != (height, width) for picture in pictures):
                said.append(f"The pictures have several sizes: smaller ones get transparent margins, all are {width}x{height}.")
            pictures, names = [torch.cat([_centred(picture, height, width) for picture in pictures])], [folder.rpartition("/")[2]]
        shown = preview_pictures(pictures, cls)
        return io.NodeOutput(pictures, [transparency_mask(picture) for picture in pictures], names, ui=shown | notes(*said))


def _paths(image: Any, folder: Any) -> list[Path]:
    return [find_picture(image)] if folder == NO_FOLDER else find_pictures(folder)


def _centred(picture: Tensor, height: int, width: int) -> Tensor:
    layer = Layer(picture, x=(width - picture.shape[2]) // 2, y=(height - picture.shape[1]) // 2)
    return on_canvas(layer, height, width)


NODES = [LoadTransparentImage]
