"""Upscale Transparent."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..lib_layerdiffuse.comfyui.alpha.upscale import upscale_rgba
from ..lib_layerdiffuse.pixels.straight import with_alpha
from . import inputs


class UpscaleTransparent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneUpscale",
            display_name="Upscale Transparent",
            category=inputs.CATEGORY,
            description="Enlarges a transparent picture with an upscaling model, without fringes: colour and alpha go through it apart.",
            search_aliases=[*inputs.ALIASES, "upscaler", "super resolution", "ESRGAN", "enlarge"],
            inputs=[
                io.UpscaleModel.Input("upscale_model", tooltip="Any model from Load Upscale Model."),
                io.Image.Input("image", tooltip="Picture with alpha [B, H, W, 4], straight. Without alpha, connect a mask."),
                inputs.mask(),
            ],
            outputs=[io.Image.Output(display_name="rgba", tooltip="The enlarged picture, straight alpha [B, H x scale, W x scale, 4].")],
        )

    @classmethod
    def execute(cls, upscale_model: Any, image: Tensor, mask: Tensor | None = None) -> io.NodeOutput:
        return io.NodeOutput(upscale_rgba(upscale_model, with_alpha(image, mask)))


NODES = [UpscaleTransparent]
