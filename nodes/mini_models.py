"""Mini Models (demo)."""

from __future__ import annotations

from comfy_api.latest import io

from ..lib_layerdiffuse.comfyui.models.mini import load_mini
from . import inputs


class MiniModels(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneMini",
            display_name="Mini Models (demo)",
            category=inputs.CATEGORY,
            description="Loads the small models that come with the pack, to try everything without a download. They know a few shapes, "
            'colours and materials at 128 x 128 pixels: "a red glass heart", "a blue star on a sunset". All nodes treat them as SD1.5.',
            search_aliases=[*inputs.ALIASES, "mini", "demo", "example", "checkpoint", "offline"],
            inputs=[],
            outputs=[
                io.Model.Output(
                    display_name="model", tooltip="Small diffusion model. LayerDiffuse nodes patch it with weights of its own."
                ),
                io.Clip.Output(display_name="clip", tooltip="Small text encoder. Words that it was not trained on say nothing to it."),
                io.Vae.Output(display_name="vae", tooltip="Small VAE, which brings its own transparency networks."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(*load_mini())


NODES = [MiniModels]
