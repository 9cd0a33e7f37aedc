"""LayerDiffuse Joint and LayerDiffuse Joint From Layer."""

from __future__ import annotations

from comfy_api.latest import io

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
                io.Model.Input("model", tooltip="An SD1.5 model. LoRA, ControlNet and IPAdapter nodes may come before or after."),
                inputs.weight(),
                *inputs.sampling_range(),
                inputs.weight_file("file", "Weights of the patch"),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="Generates sets of foreground, background, blended.")],
        )

    @classmethod
    def execute(cls, model, weight, start, end, file=AUTO) -> io.NodeOutput:
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
                io.Model.Input("model", tooltip="An SD1.5 model. LoRA, ControlNet and IPAdapter nodes may come before or after."),
                inputs.layer_image("image", "The given layer"),
                inputs.given(),
                inputs.fit(),
                inputs.weight(),
                *inputs.sampling_range(),
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
    def execute(cls, model, image, given, fit, weight, start, end, mask=None, file=AUTO) -> io.NodeOutput:
        rgba = with_alpha(image, mask)
        return io.NodeOutput(make_joint_from_layer(model, rgba, given, fit=fit, strength=Strength(weight, start, end), file=file))


NODES = [LayerDiffuseJoint, LayerDiffuseJointFromLayer]
