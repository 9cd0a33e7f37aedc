"""LayerDiffuse Joint and LayerDiffuse Joint From Layer."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ..lib_layerdiffuse.comfyui.models.weight_files import AUTO
from ..lib_layerdiffuse.comfyui.patch.strength import Strength
from ..lib_layerdiffuse.comfyui.recipes.joint import make_joint, make_joint_from_layer
from ..lib_layerdiffuse.pixels.straight import with_alpha
from . import inputs


class LayerDiffuseJoint(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneJoint",
            display_name="LayerDiffuse Joint",
            category=inputs.CATEGORY,
            description="Patches an SD1.5 model to generate a transparent foreground, its background and both blended, all three at once. "
            "Start from Empty Layer Latent; each layer can have a prompt of its own by Layer Prompts.",
            search_aliases=[*inputs.ALIASES, "Layer Diffuse Joint Apply", "layers", "foreground and background"],
            inputs=[
                inputs.model("SD1.5"),
                *inputs.strength(),
                inputs.weight_file("file", "Weights of the patch"),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="Generates sets of foreground, background, blended.")],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, weight: float, start: float, end: float, file: str = AUTO) -> io.NodeOutput:
        return io.NodeOutput(make_joint(model, strength=Strength(weight, start, end), file=file))


class LayerDiffuseJointFromLayer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneJointFromLayer",
            display_name="LayerDiffuse Joint From Layer",
            category=inputs.CATEGORY,
            description="Patches an SD1.5 model to generate the layer that is missing beside a given one, and both blended.",
            search_aliases=[*inputs.ALIASES, "Layer Diffuse Cond Joint Apply", "foreground to background", "background to foreground"],
            inputs=[
                inputs.model("SD1.5"),
                inputs.layer_image("image", "The given layer"),
                inputs.given(),
                inputs.fit(),
                *inputs.strength(),
                inputs.mask(),
                inputs.weight_file("file", "Weights of the patch"),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="Generates sets of background, blended (given a foreground) or foreground, blended (given a background).",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
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
        return io.NodeOutput(make_joint_from_layer(model, rgba, given, fit=fit, strength=strength, file=file))


NODES = [LayerDiffuseJoint, LayerDiffuseJointFromLayer]
