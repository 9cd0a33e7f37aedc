"""Load Layers."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..lib_layerdiffuse.comfyui.files.input_files import document_choices, find_document, fingerprint, load_layers
from ..lib_layerdiffuse.comfyui.files.previews import preview
from ..lib_layerdiffuse.comfyui.messages import counted, notes
from ..lib_layerdiffuse.documents.tree import APART, GROUPS
from ..lib_layerdiffuse.errors import DiaphaneError
from ..lib_layerdiffuse.pixels.clipping import on_canvas
from ..lib_layerdiffuse.pixels.composite import Layer, Layers
from ..lib_layerdiffuse.pixels.layer_stack import named
from ..lib_layerdiffuse.pixels.straight import transparency_mask, with_alpha
from . import inputs


class LoadLayers(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneLoadLayers",
            display_name="Load Layers",
            category=inputs.CATEGORY,
            description="Opens a layered PSD, PSB or OpenRaster file of Photoshop, Krita, GIMP, Photopea and others: names, positions, "
            "opacity, blend modes, masks and clipping. What cannot be kept is said under the node.",
            search_aliases=[
                *inputs.ALIASES,
                "PSD",
                "PSB",
                "Photoshop",
                "Photopea",
                "OpenRaster",
                "ORA",
                "Krita",
                "GIMP",
                "open PSD",
                "import PSD",
                "load PSD",
                "edit layers",
                "PSD to image",
            ],
            inputs=[
                inputs.FileChoice(
                    "file",
                    options=document_choices(),
                    tooltip="A PSD, PSB or OpenRaster file in ComfyUI's input folder, or one that Save Layers has put into output. "
                    "Press R after you have copied one there.",
                ),
                io.Combo.Input(
                    "groups",
                    options=list(GROUPS),
                    default=APART,
                    tooltip="take apart: each layer by itself, with the opacity, visibility, mask and mode of its groups. "
                    "merge: each group as one layer, and each layer with those that are clipped to it.",
                ),
                io.String.Input(
                    "pick",
                    default="",
                    multiline=True,
                    tooltip="Names of layers, one a line, for the output picked. Empty: all layers put together.",
                ),
            ],
            outputs=[
                inputs.LAYERS.Output(display_name="layers", tooltip="For Composite Layers or Save Layers. Hidden layers stay hidden."),
                io.Image.Output(
                    display_name="image",
                    tooltip="The visible layers put together: RGB [1, H, W, 3] on an opaque background, else RGBA with straight alpha.",
                ),
                io.Mask.Output(display_name="mask", tooltip="Transparency of image [1, H, W], 1 = transparent."),
                io.Image.Output(
                    display_name="picked",
                    is_output_list=True,
                    tooltip="A list: for each name in pick that layer alone [1, H, W, 4], in its place, without opacity and mode.",
                ),
                io.String.Output(display_name="names", tooltip="Names of all layers, one a line, the lowest first."),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: Any = None) -> bool | str:
        return inputs.is_there(lambda: find_document(file), file)

    @classmethod
    def fingerprint_inputs(cls, file: Any = None, **others: Any) -> Any:
        return fingerprint([find_document(file)])

    @classmethod
    def execute(cls, file: str, groups: str, pick: str) -> io.NodeOutput:
        layers, said = load_layers(find_document(file), groups)
        layers = named(layers, [])
        image = layers.flatten()
        chosen = _picked(layers, pick.splitlines())
        picked = [on_canvas(layer, layers.height, layers.width) for layer in chosen] or [with_alpha(image)]
        names = [layer.name for layer in layers.layers]
        read = f"{counted(len(names), 'layer')}, {layers.width}x{layers.height}: {', '.join(names):.300}."
        hidden = [layer.name for layer in layers.layers if not layer.visible]
        said = [read, *([f"Hidden: {', '.join(hidden):.200}."] if hidden else []), *said]
        shown = preview(layers, above=len(names)) | notes(*said)
        return io.NodeOutput(layers, image, transparency_mask(with_alpha(image)), picked, "\n".join(names), ui=shown)


def _picked(layers: Layers, names: list[str]) -> list[Layer]:
    """The layers of these names, in this order."""
    wanted = [name.strip() for name in names if name.strip()]
    found = [[layer for layer in layers.layers if layer.name == name] for name in wanted]
    missing = [name for name, some in zip(wanted, found, strict=True) if not some]
    if missing:
        there = ", ".join(layer.name for layer in layers.layers)
        raise DiaphaneError(f"Load Layers finds no layer {missing[0]!r:.120}. Write one of these into pick: {there:.300}.")
    return [layer for some in found for layer in some]


NODES = [LoadLayers]
