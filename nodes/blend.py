"""LayerDiffuse Blend."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from comfy_api.latest import io
from torch import Tensor

from ..lib_layerdiffuse.comfyui.alpha.transparent_vae import opaque_vae
from ..lib_layerdiffuse.comfyui.models.weight_files import AUTO
from ..lib_layerdiffuse.comfyui.patch.strength import Strength
from ..lib_layerdiffuse.comfyui.recipes.blend_extract import make_blend
from ..lib_layerdiffuse.pixels.straight import with_alpha
from . import inputs


class LayerDiffuseBlend(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneBlend",
            display_name="LayerDiffuse Blend",
            category=inputs.CATEGORY,
            description="Patches an SDXL model to generate a whole picture around a given foreground or in front of a given background. "
            "Decode it with the ordinary VAE Decode; LayerDiffuse Extract then takes the other layer out of it.",
            search_aliases=[*inputs.ALIASES, "Layer Diffuse Cond Apply", "foreground to blended", "background to blended", "compose"],
            inputs=[
                inputs.model("SDXL"),
                inputs.vae(),
                inputs.layer_image("image", "The given layer"),
                inputs.given(),
                inputs.fit(),
                *inputs.strength(),
                inputs.mask(),
                inputs.weight_file("file", "Weights of the patch"),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="Generates opaque pictures that contain the given layer.")],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        vae: VAE,
        image: Tensor,
        given: str,
        fit: str,
        weight: float,
        start: float,
        end: float,
        mask: Tensor | None = None,
        file: str = AUTO,
    ) -> io.NodeOutput:
        rgba, strength = with_alpha(image, mask), Strength(weight, start, end)
        return io.NodeOutput(make_blend(model, opaque_vae(vae), rgba, given, fit=fit, strength=strength, file=file))


NODES = [LayerDiffuseBlend]
