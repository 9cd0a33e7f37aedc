"""LayerDiffuse Transparent."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..lib_layerdiffuse.comfyui.models.weight_files import AUTO
from ..lib_layerdiffuse.comfyui.patch.strength import Strength
from ..lib_layerdiffuse.comfyui.recipes.transparent import METHODS, make_transparent
from . import inputs


class LayerDiffuseTransparent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneTransparent",
            display_name="LayerDiffuse Transparent",
            category=inputs.CATEGORY,
            description="Patches a model to generate pictures with transparency. Decode them with Transparent VAE Decode.",
            search_aliases=[*inputs.ALIASES, "Layer Diffuse Apply", "transparent background", "cut-out", "sprite", "PNG"],
            inputs=[
                inputs.model("SD1.5, SDXL or FLUX.1"),
                io.Combo.Input(
                    "method",
                    options=METHODS,
                    default=AUTO,
                    tooltip="attention: changes the attention layers alone, keeps the model's style. conv: changes all others, SDXL only, "
                    "often cleaner alpha. auto: attention.",
                ),
                *inputs.strength(),
                inputs.weight_file("file", "Weights of the patch"),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The patched model; the one that came in is unchanged.")],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, method: str, weight: float, start: float, end: float, file: str = AUTO) -> io.NodeOutput:
        return io.NodeOutput(make_transparent(model, method=method, strength=Strength(weight, start, end), file=file))


NODES = [LayerDiffuseTransparent]
