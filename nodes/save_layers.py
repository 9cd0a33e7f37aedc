"""Save Layers."""

from __future__ import annotations

from collections.abc import Mapping

from comfy_api.latest import io
from torch import Tensor

from ..lib_layerdiffuse.comfyui.files import output_files
from ..lib_layerdiffuse.comfyui.files.save_layers import FORMATS, LAYER_SIDE, PSD, save_layers
from ..lib_layerdiffuse.comfyui.messages import counted, notes
from ..lib_layerdiffuse.pixels.composite import PHOTOSHOP, Layers
from ..lib_layerdiffuse.pixels.layer_stack import in_order, named, stacked
from . import hints, inputs


class SaveLayers(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneSaveLayers",
            display_name="Save Layers",
            category=inputs.CATEGORY,
            description="Saves layers for a paint program: a layered PSD or OpenRaster file, or one PNG per layer. Names, positions, "
            "opacity and blend modes are kept.",
            search_aliases=[*inputs.ALIASES, "PSD", "Photoshop", "OpenRaster", "ORA", "Krita", "GIMP", "export", "PNG"],
            inputs=[
                inputs.growing_layers("The lowest first: a picture, a layer of Place Layer, or all layers of Composite Layers."),
                inputs.filename_prefix("layers"),
                io.Combo.Input(
                    "format",
                    options=list(FORMATS),
                    default=PSD,
                    tooltip="PSD: Photoshop and most others. OpenRaster: Krita, GIMP, MyPaint. PNG: numbered pictures, one per layer.",
                ),
                io.String.Input(
                    "names",
                    default="",
                    multiline=True,
                    tooltip="Names of the layers, one a line, the lowest first. An empty line keeps a layer's own name, or its number.",
                ),
                inputs.blending("the flat picture in PSD and OpenRaster files"),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, layers: Mapping[str, Tensor | Layers], filename_prefix: str, format: str, names: str, blending: str = PHOTOSHOP
    ) -> io.NodeOutput:
        given = in_order(layers)
        stack = named(stacked(None, given), names.splitlines())
        metadata = output_files.workflow_metadata(cls.hidden.prompt, cls.hidden.extra_pnginfo)
        found = save_layers(stack, format, filename_prefix, metadata, blending)
        count = len(stack.layers)
        said = f"{counted(count, 'layer')} saved: {output_files.paths(found['files'])}."
        if count == 1 and isinstance(given[0], Tensor):
            said += " It is one flat picture: to keep layers apart, connect layers of Composite Layers."
        if len(found["images"]) == count > 1 and max(stack.height, stack.width) > LAYER_SIDE:
            said += f" The pictures here are reduced to {LAYER_SIDE} pixels; the file is not."
        advice = [*hints.on_lost_layers(stack), *hints.on_modes_of_files(stack, format), *hints.on_flat_picture(stack, format, blending)]
        return io.NodeOutput(ui=found | notes(said, *advice))


NODES = [SaveLayers]
