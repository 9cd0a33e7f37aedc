"""Layer Prompts."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..lib_layerdiffuse.comfyui.layers import BACKGROUND, BLENDED, FOREGROUND, NAMES, arrangement, layer_prompts
from . import inputs


class LayerPrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneLayerPrompts",
            display_name="Layer Prompts",
            category=inputs.CATEGORY,
            description="Gives each layer of an SD1.5 joint generation its own prompt. Connect the result as positive conditioning.",
            search_aliases=[*inputs.ALIASES, "fg_cond", "bg_cond", "blended_cond", "prompt per layer"],
            inputs=[
                io.Conditioning.Input("base", tooltip="Prompt of the layers that get none of their own."),
                inputs.layers(),
                *(io.Conditioning.Input(name, optional=True, tooltip=f"Prompt of the {name} layer.") for name in NAMES),
            ],
            outputs=[io.Conditioning.Output(display_name="positive", tooltip="One prompt per layer, in the order of the batch.")],
        )

    @classmethod
    def execute(
        cls,
        base: list[Any],
        layers: str,
        foreground: list[Any] | None = None,
        background: list[Any] | None = None,
        blended: list[Any] | None = None,
    ) -> io.NodeOutput:
        prompts = {FOREGROUND: foreground, BACKGROUND: background, BLENDED: blended}
        return io.NodeOutput(layer_prompts(base, arrangement(layers), prompts))


NODES = [LayerPrompts]
