"""Composite Layers."""

from __future__ import annotations

from collections.abc import Mapping

from comfy_api.latest import io
from torch import Tensor

from ..lib_layerdiffuse.comfyui.files.previews import preview
from ..lib_layerdiffuse.comfyui.messages import notes
from ..lib_layerdiffuse.pixels.composite import PHOTOSHOP, Layers
from ..lib_layerdiffuse.pixels.layer_stack import in_order, stacked
from . import hints, inputs


class CompositeLayers(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneComposite",
            display_name="Composite Layers",
            category=inputs.CATEGORY,
            description="Puts any number of layers on a background. Place Layer gives a layer its blend mode, opacity, position and scale.",
            search_aliases=[*inputs.ALIASES, "merge layers", "alpha over", "paste", "blend", "flatten", "compose"],
            inputs=[
                io.MultiType.Input(
                    "background",
                    types=inputs.PICTURES_AND_LAYERS,
                    optional=True,
                    tooltip="What lies below: a picture, RGB or RGBA, or the layers of another composition. It gives the size. "
                    "Without it the lowest layer does, on nothing.",
                ),
                inputs.growing_layers("The lowest first: a picture, RGB or RGBA with straight alpha, or a layer of Place Layer."),
                io.Mask.Input(
                    "area",
                    optional=True,
                    tooltip="The new layers appear only where this is 1, as in a painted mask. Unlike other masks here it does not say "
                    "1 = transparent.",
                ),
                inputs.blending("the image"),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image",
                    tooltip="The composite: RGB [B, H, W, 3] on an opaque background, else RGBA with straight alpha. Pixels that no new "
                    "layer covers are exactly those of the background.",
                ),
                inputs.LAYERS.Output(
                    display_name="layers", tooltip="All layers, the background included, for Save Layers or another composition."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        layers: Mapping[str, Tensor | Layers] | None = None,
        background: Tensor | Layers | None = None,
        area: Tensor | None = None,
        blending: str = PHOTOSHOP,
    ) -> io.NodeOutput:
        stack = stacked(background, in_order(layers), area)
        below = 0 if background is None else len(background.layers) if isinstance(background, Layers) else 1
        shown = preview(stack, below, blending) | notes(*hints.on_lost_layers(stack, above=below))
        return io.NodeOutput(stack.flatten(blending=blending), stack, ui=shown)


NODES = [CompositeLayers]
