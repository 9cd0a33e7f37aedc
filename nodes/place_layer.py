"""Place Layer."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..lib_layerdiffuse.comfyui.messages import notes
from ..lib_layerdiffuse.pixels.blend import BLENDS, NORMAL
from ..lib_layerdiffuse.pixels.composite import Layer, Layers
from ..lib_layerdiffuse.pixels.place import place
from ..lib_layerdiffuse.pixels.straight import check_picture, with_alpha
from . import hints, inputs


class PlaceLayer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphanePlaceLayer",
            display_name="Place Layer",
            category=inputs.CATEGORY,
            description="Says how a picture lies in a composition: name, blend mode, opacity, position, scale and rotation.",
            search_aliases=[
                *inputs.ALIASES,
                "layer",
                "blend mode",
                "opacity",
                "move",
                "move layer",
                "position",
                "transform",
                "offset",
                "rotate",
            ],
            inputs=[
                io.Image.Input("image", tooltip="The layer: RGBA [B, H, W, 4] with straight alpha, or RGB. Any size."),
                inputs.mask(),
                io.String.Input("name", default="", tooltip="The layer's name in saved files. Empty: its number."),
                io.Combo.Input("mode", options=list(BLENDS), default=NORMAL, tooltip="How its colour mixes with what lies below."),
                io.Float.Input("opacity", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="0 = invisible, 1 = as it is."),
                io.Int.Input(
                    "x", default=0, min=-16384, max=16384, tooltip="Pixels to the right, from the canvas's left edge to the picture's."
                ),
                io.Int.Input("y", default=0, min=-16384, max=16384, tooltip="Pixels down, from the canvas's top edge to the picture's."),
                io.Float.Input(
                    "scale", default=1.0, min=0.01, max=16.0, step=0.01, tooltip="Size, about the layer's centre. 1 = as it is."
                ),
                io.Float.Input(
                    "rotation",
                    default=0.0,
                    min=-360.0,
                    max=360.0,
                    step=0.5,
                    advanced=True,
                    tooltip="Degrees clockwise, about the layer's centre.",
                ),
            ],
            outputs=[inputs.LAYERS.Output(display_name="layer", tooltip="For Composite Layers or Save Layers.")],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        name: str,
        mode: str,
        opacity: float,
        x: int,
        y: int,
        scale: float,
        rotation: float,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        check_picture(image)
        height, width = image.shape[1:3]
        if mask is not None or image.shape[-1] != 3:
            image = with_alpha(image, mask)
        placed, left, top = place(image, scale, rotation)
        layer = Layer(placed, name=name, mode=mode, opacity=opacity, x=x + left, y=y + top)
        covers = mode == NORMAL and opacity == 1.0  # anything else is meant to lie over all of what is below
        hint = hints.on_opaque(image, mask) if covers else []
        return io.NodeOutput(Layers(height, width, (layer,)), ui=notes(*hint))


NODES = [PlaceLayer]
