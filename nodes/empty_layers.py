"""Empty Layer Latent."""

from __future__ import annotations

import comfy.model_management
from comfy_api.latest import io

from ..lib_layerdiffuse.comfyui.layers import arrangement, empty_latent
from . import inputs


class EmptyLayerLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneEmptyLayers",
            display_name="Empty Layer Latent",
            category=inputs.CATEGORY,
            description="An empty SD1.5 latent with the right batch for layers that are generated together. It names its layers, so that "
            "Transparent VAE Decode and Split Layers know which is which.",
            search_aliases=[*inputs.ALIASES, "Empty Latent Image", "batch size 3N", "batch size 2N"],
            inputs=[
                io.Int.Input("width", default=512, min=64, max=8192, step=64, tooltip="Width in pixels, rounded to a multiple of 64."),
                io.Int.Input("height", default=512, min=64, max=8192, step=64, tooltip="Height in pixels, rounded to a multiple of 64."),
                inputs.layers(),
                io.Int.Input("sets", default=1, min=1, max=64, tooltip="How many sets of layers to generate."),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="sets x layers empty latents, set by set.")],
        )

    @classmethod
    def execute(cls, width: int, height: int, layers: str, sets: int) -> io.NodeOutput:
        device = comfy.model_management.intermediate_device()
        return io.NodeOutput(empty_latent(width, height, arrangement(layers), sets, device))


NODES = [EmptyLayerLatent]
