"""Layers To ComfyUI, Layers From ComfyUI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..lib_layerdiffuse.comfyui.messages import notes
from ..lib_layerdiffuse.documents.comfyui_layers import MOST_LAYERS, from_comfyui, to_comfyui, without_picture
from ..lib_layerdiffuse.errors import DiaphaneError
from ..lib_layerdiffuse.pixels.composite import Layers, common_batch
from ..lib_layerdiffuse.pixels.layer_stack import in_order, stacked
from . import hints, inputs

ALIASES = [*inputs.ALIASES, "layer editor", "compositor", "LAYERS", "layer stack", "Create Layered Image", "Add Layer", "convert layers"]


class LayersToComfyUI(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneToCore",
            display_name="Layers To ComfyUI",
            category=inputs.CATEGORY,
            description="Hands layers to ComfyUI's own layer nodes (ComfyUI 0.31 and newer): Create Layered Image, in whose editor they "
            "can be moved, turned, sorted and blended, and Add Layer.",
            search_aliases=ALIASES,
            is_experimental=True,
            inputs=[
                inputs.growing_layers("The lowest first: a picture, a layer of Place Layer, or all layers of Composite Layers."),
                io.Int.Input(
                    "picture",
                    default=0,
                    min=0,
                    max=4096,
                    advanced=True,
                    tooltip="Which picture of a batch; 1 is the first. 0: all, one after another, so that the next node runs for each.",
                ),
            ],
            outputs=[
                inputs.COMFYUI_LAYERS.Output(
                    display_name="layers",
                    is_output_list=True,
                    tooltip="For Create Layered Image and Add Layer: names, places, opacity, blend modes and hidden layers are kept.",
                )
            ],
        )

    @classmethod
    def execute(cls, layers: Mapping[str, Tensor | Layers], picture: int = 0) -> io.NodeOutput:
        stack = stacked(None, in_order(layers))
        count = common_batch([layer.image for layer in stack.layers])
        if picture > count:
            raise DiaphaneError(f"There is no picture {picture} in a batch of {count}. Set picture to at most {count}, or to 0 for all.")
        chosen = range(count) if picture == 0 else [picture - 1]
        said = hints.on_editor_blending(stack)
        if len(stack.layers) > MOST_LAYERS:
            said.append(f"Create Layered Image takes at most {MOST_LAYERS} layers, these are {len(stack.layers)}. Put some together first.")
        if len(chosen) > 1:
            said.append(f"{count} pictures, so the next node runs {count} times. For its editor choose one by picture.")
        return io.NodeOutput([to_comfyui(stack.one(index)) for index in chosen], ui=notes(*said))


class LayersFromComfyUI(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneFromCore",
            display_name="Layers From ComfyUI",
            category=inputs.CATEGORY,
            description="Takes the layers of ComfyUI's own nodes (Add Layer, Layers From Bounding Boxes) or of a node that takes a picture "
            "apart. Inputs for layers take them as they are, too.",
            search_aliases=ALIASES,
            is_experimental=True,
            inputs=[
                inputs.COMFYUI_LAYERS.Input(
                    "layers",
                    tooltip="Layers of Add Layer and the like. Scale, turns and flips become part of the pictures. "
                    "What is moved in the editor of Create Layered Image is not in them.",
                )
            ],
            outputs=[
                inputs.LAYERS.Output(
                    display_name="layers", tooltip="For Composite Layers and Save Layers. Each picture of a batch is a layer of its own."
                )
            ],
        )

    @classmethod
    def execute(cls, layers: Mapping[str, Any]) -> io.NodeOutput:
        stack = from_comfyui(layers)
        left_out = without_picture(layers)
        said = [f"{left_out} without a picture left out."] if left_out else []
        return io.NodeOutput(stack, ui=notes(*said, *hints.on_editor_blending(stack)))


NODES = [LayersToComfyUI, LayersFromComfyUI]
