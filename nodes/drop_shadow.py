"""Drop Shadow."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io
from torch import Tensor

from ..lib_layerdiffuse.pixels.composite import Layers
from ..lib_layerdiffuse.pixels.layer_stack import as_layers
from ..lib_layerdiffuse.pixels.shadow import drop_shadow, rgb
from . import inputs


class DropShadow(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneDropShadow",
            display_name="Drop Shadow",
            category=inputs.CATEGORY,
            description="Puts a soft shadow, a glow or an outline behind a layer, as a layer of its own. Size and spread are as in "
            "Photoshop.",
            search_aliases=[
                *inputs.ALIASES,
                "shadow",
                "layer style",
                "layer effect",
                "glow",
                "outer glow",
                "outline",
                "stroke",
                "sticker",
                "blur",
            ],
            inputs=[
                io.MultiType.Input(
                    "layer",
                    types=inputs.PICTURES_AND_LAYERS,
                    tooltip="A picture with alpha [B, H, W, 4], a layer of Place Layer, or several: each gets a shadow of its own.",
                ),
                io.Int.Input("x", default=6, min=-4096, max=4096, tooltip="Pixels to the right, from the layer to its shadow."),
                io.Int.Input("y", default=6, min=-4096, max=4096, tooltip="Pixels down, from the layer to its shadow."),
                io.Float.Input(
                    "blur",
                    default=12.0,
                    min=0.0,
                    max=256.0,
                    step=0.5,
                    tooltip="Pixels over which the shadow fades out beyond the edge: Size in Photoshop, twice the sigma of the Gaussian.",
                ),
                io.Float.Input(
                    "spread",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of blur by which the shape grows instead of fading. 1: a hard outline as wide as blur.",
                ),
                io.Color.Input("colour", default="#000000", tooltip="#rrggbb. Black for a shadow, something bright for a glow."),
                io.Float.Input("opacity", default=0.5, min=0.0, max=1.0, step=0.01, tooltip="Of the shadow. 1 = opaque in its middle."),
            ],
            outputs=[
                inputs.LAYERS.Output(display_name="layers", tooltip="Shadow and layer, for Composite Layers or Save Layers."),
                inputs.LAYERS.Output(display_name="shadow", tooltip="The shadow alone, blend mode normal."),
            ],
        )

    @classmethod
    def execute(cls, layer: Tensor | Layers, x: int, y: int, blur: float, spread: float, colour: str, opacity: float) -> io.NodeOutput:
        stack = as_layers(layer)
        shadows = [drop_shadow(one, x, y, blur, spread, rgb(colour), opacity) for one in stack.layers]
        both = [part for pair in zip(shadows, stack.layers, strict=True) for part in pair]
        return io.NodeOutput(replace(stack, layers=tuple(both)), replace(stack, layers=tuple(shadows)))


NODES = [DropShadow]
