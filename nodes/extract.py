"""LayerDiffuse Extract."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from comfy_api.latest import io
from torch import Tensor

from ..lib_layerdiffuse.comfyui.alpha.transparent_vae import opaque_vae
from ..lib_layerdiffuse.comfyui.layers import BACKGROUND, FOREGROUND
from ..lib_layerdiffuse.comfyui.models.weight_files import AUTO
from ..lib_layerdiffuse.comfyui.patch.strength import Strength
from ..lib_layerdiffuse.comfyui.recipes.blend_extract import make_extract
from ..lib_layerdiffuse.pixels.straight import with_alpha
from . import inputs


class LayerDiffuseExtract(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneExtract",
            display_name="LayerDiffuse Extract",
            category=inputs.CATEGORY,
            description="Patches an SDXL model to take one layer out of a blended picture, given the other: the background behind a "
            "foreground, or the transparent foreground before a background. Use the samplers Euler a or UniPC, not the DPM ones.",
            search_aliases=[*inputs.ALIASES, "Layer Diffuse Diff Apply", "separate layers", "extract foreground", "extract background"],
            inputs=[
                inputs.model("SDXL"),
                inputs.vae(),
                io.Image.Input("blended", tooltip="The blended picture [B, H, W, 3], e.g. from LayerDiffuse Blend."),
                inputs.layer_image("layer", "The layer that is known: the foreground to extract the background, and the other way round"),
                io.Combo.Input(
                    "extract",
                    options=[BACKGROUND, FOREGROUND],
                    default=BACKGROUND,
                    tooltip="The layer that is wanted. A foreground is transparent: decode it with Transparent VAE Decode.",
                ),
                inputs.fit(),
                *inputs.strength(end_hint=" 0.5 is recommended to extract a background."),
                inputs.mask("layer_mask", "the layer's own"),
                inputs.weight_file("file", "Weights of the patch"),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="Generates the wanted layer.")],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        vae: VAE,
        blended: Tensor,
        layer: Tensor,
        extract: str,
        fit: str,
        weight: float,
        start: float,
        end: float,
        layer_mask: Tensor | None = None,
        file: str = AUTO,
    ) -> io.NodeOutput:
        rgba, strength = with_alpha(layer, layer_mask), Strength(weight, start, end)
        patched = make_extract(model, opaque_vae(vae), with_alpha(blended), rgba, extract, fit=fit, strength=strength, file=file)
        return io.NodeOutput(patched)


NODES = [LayerDiffuseExtract]
