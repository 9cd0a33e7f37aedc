"""Split Layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy.sd import VAE
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ..lib_layerdiffuse.comfyui.alpha.split import decode_and_split
from ..lib_layerdiffuse.comfyui.layers import NAMES
from ..lib_layerdiffuse.comfyui.messages import notes
from ..lib_layerdiffuse.comfyui.models.weight_files import AUTO
from . import hints, inputs


class SplitLayers(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneSplitLayers",
            display_name="Split Layers",
            category=inputs.CATEGORY,
            description="Takes a batch of layers apart. Connect samples and vae to decode them (the foreground with alpha), or images "
            "that are decoded already, or all three to use retouched images.",
            search_aliases=[*inputs.ALIASES, "Layer Diffuse Decode (Split)", "separate layers"],
            inputs=[
                io.Latent.Input("samples", optional=True, tooltip="Latent of SD1.5 layers; needs vae."),
                io.Vae.Input("vae", optional=True, tooltip="The ordinary VAE of the model that sampled; needs samples."),
                io.Image.Input("images", optional=True, tooltip="The layers as pictures, set by set [sets x layers, H, W, 3 or 4]."),
                inputs.layers(with_auto=True),
                inputs.passes(),
                inputs.weight_file("decoder_file", "Transparency decoder"),
            ],
            outputs=[
                io.Image.Output(
                    display_name="foreground", tooltip="With alpha [sets, H, W, 4] where it was decoded here or came with alpha."
                ),
                io.Image.Output(display_name="background", tooltip="Opaque [sets, H, W, 3]."),
                io.Image.Output(display_name="blended", tooltip="Opaque [sets, H, W, 3]."),
            ],
        )

    @classmethod
    def execute(
        cls,
        layers: str,
        passes: int,
        samples: Mapping[str, Any] | None = None,
        vae: VAE | None = None,
        images: Tensor | None = None,
        decoder_file: str = AUTO,
    ) -> io.NodeOutput:
        found, stray = decode_and_split(samples, vae, images, layers=layers, passes=passes, decoder_file=decoder_file)
        return io.NodeOutput(
            *(
                found.get(name, ExecutionBlocker(f"This batch has no {name} layer, only {' and '.join(found)}. Disconnect this output."))
                for name in NAMES
            ),
            ui=notes(*hints.on_layer_with_alpha(stray)),
        )


NODES = [SplitLayers]
