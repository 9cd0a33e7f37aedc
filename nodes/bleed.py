"""Bleed Colour."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..lib_layerdiffuse.comfyui.alpha.codec import bleed
from ..lib_layerdiffuse.pixels.straight import with_alpha
from . import inputs


class BleedColour(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneBleed",
            display_name="Bleed Colour",
            category=inputs.CATEGORY,
            description="Carries the colour of a transparent picture out under its transparent pixels, so that edges have no fringes when "
            "it is resized, filtered or used without alpha.",
            search_aliases=[*inputs.ALIASES, "pad", "padding", "bleed color", "defringe", "matte"],
            inputs=[
                io.Image.Input("image", tooltip="Picture with alpha [B, H, W, 4], straight. Without alpha, connect a mask."),
                inputs.mask(),
            ],
            outputs=[
                io.Image.Output(display_name="rgb", tooltip="Opaque picture [B, H, W, 3]: opaque pixels unchanged, the others filled.")
            ],
        )

    @classmethod
    def execute(cls, image: Tensor, mask: Tensor | None = None) -> io.NodeOutput:
        return io.NodeOutput(bleed(with_alpha(image, mask)))


NODES = [BleedColour]
