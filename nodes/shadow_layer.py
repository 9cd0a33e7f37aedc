"""Shadow Layer."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..lib_layerdiffuse.comfyui.messages import notes
from ..lib_layerdiffuse.pixels.fit import CROP
from ..lib_layerdiffuse.pixels.shadow_layer import shadow_layer
from ..lib_layerdiffuse.pixels.straight import check_picture, with_alpha
from . import hints, inputs


class ShadowLayer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneShadow",
            display_name="Shadow Layer",
            category=inputs.CATEGORY,
            description="Takes the shadow and the light that an object casts on its background out of a blended picture, as layers of "
            "their own. The background itself stays as it is.",
            search_aliases=[
                *inputs.ALIASES,
                "shadow",
                "cast shadow",
                "contact shadow",
                "extract shadow",
                "reflection",
                "light",
                "multiply",
                "harmonize",
            ],
            inputs=[
                io.Image.Input(
                    "background",
                    tooltip="The picture without the object [B, H, W, 3], such as your photo. It is brought to the layer's size.",
                ),
                io.Image.Input(
                    "layer", tooltip="The object: RGBA [B, H, W, 4], straight. Without alpha, connect a mask. It gives the size."
                ),
                io.Image.Input(
                    "blended", tooltip="The picture with the object and its shadow [B, H, W, 3]. It is brought to the layer's size."
                ),
                io.Float.Input(
                    "smooth",
                    default=3.0,
                    min=0.0,
                    max=64.0,
                    step=0.5,
                    tooltip="Pixels over which brightness is compared (sigma of a Gaussian). More removes noise and softens the "
                    "shadow's edge.",
                ),
                io.Float.Input(
                    "threshold",
                    default=0.03,
                    min=0.0,
                    max=1.0,
                    step=0.005,
                    tooltip="Differences up to this alpha count as noise. Raise it if specks or haze are found; lower it for "
                    "faint shadows.",
                ),
                inputs.mask(whose="the layer's own"),
                io.Combo.Input(
                    "fit",
                    options=list(inputs.FITS),
                    default=CROP,
                    optional=True,
                    advanced=True,
                    tooltip="How a background or blended picture of other proportions meets the layer. Set it as in the node that patched "
                    "the model: crop fills and cuts, fit shows all on grey, stretch distorts.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="shadow", tooltip="Black with alpha [B, H, W, 4]: a layer between background and object, mode normal."
                ),
                io.Image.Output(
                    display_name="light", tooltip="Colour with alpha [B, H, W, 4]: a layer above the shadow, mode add of Place Layer."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        background: Tensor,
        layer: Tensor,
        blended: Tensor,
        smooth: float,
        threshold: float,
        mask: Tensor | None = None,
        fit: str = CROP,
    ) -> io.NodeOutput:
        check_picture(layer)
        rgba = with_alpha(layer, mask)
        shadow, light = shadow_layer(background, rgba, blended, smooth, threshold, fit)
        return io.NodeOutput(shadow, light, ui=notes(*hints.on_opaque(rgba, mask)))


NODES = [ShadowLayer]
