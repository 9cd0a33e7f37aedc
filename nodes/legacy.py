"""The nodes of the older pack, under their old ids and deprecated, so that workflows made for it run unchanged.

Ids, inputs, their order, values and defaults are the older pack's for ever: workflows store widget values by position. They are only
registered where no other pack has the id. Mind that masks here mean the opposite of everywhere else: 1 = opaque.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ..lib_layerdiffuse.comfyui.recipes import legacy
from ..lib_layerdiffuse.pixels.straight import check_picture
from . import inputs
from .checks import checked

MOST_FRAMES = 3

Latent: TypeAlias = Mapping[str, Any]
Prompt: TypeAlias = list[Any] | None


def schema(node_id: str, display_name: str, description: str, inputs_: list[io.Input], *outputs: io.Output) -> io.Schema:
    return io.Schema(
        node_id=node_id,
        display_name=display_name,
        category=f"{inputs.CATEGORY}/deprecated",
        description=f"Deprecated: use {description}",
        inputs=inputs_,
        outputs=[*outputs],
        is_deprecated=True,
    )


def model(family: str) -> io.Model.Input:
    return io.Model.Input("model", tooltip=f"An {family} model.")


def config(options: Iterable[str], tooltip: str) -> io.Combo.Input:
    return io.Combo.Input("config", options=[*options], default=next(iter(options)), tooltip=tooltip)


def prompt(input_id: str, layer: str) -> io.Conditioning.Input:
    return io.Conditioning.Input(input_id, optional=True, tooltip=f"Prompt of the {layer} layer; without it, the sampler's positive one.")


def patched() -> io.Model.Output:
    return io.Model.Output(display_name="MODEL", tooltip="The patched model; the one that came in is unchanged.")


def conditioned(node_id: str, display_name: str, description: str, *latents: io.Input) -> io.Schema:
    """Of a node that patches an SDXL model by given latents."""
    given = io.Latent.Input("latent", tooltip="The given layer, put on mid-grey and encoded with the model's VAE; any size.")
    return schema(
        node_id,
        display_name,
        description,
        [
            model("SDXL"),
            io.Conditioning.Input("cond", tooltip="Positive prompt; handed on as it is."),
            io.Conditioning.Input("uncond", tooltip="Negative prompt; handed on as it is."),
            *latents,
            given,
            config(legacy.GIVEN, "Which layer the given latent is."),
            inputs.weight(),
        ],
        patched(),
        io.Conditioning.Output(display_name="positive", tooltip="The positive prompt."),
        io.Conditioning.Output(display_name="negative", tooltip="The negative prompt."),
    )


def decode_inputs(*more: io.Input) -> list[io.Input]:
    return [
        io.Latent.Input("samples", tooltip="Latent from the sampler, SD1.5 or SDXL."),
        io.Image.Input("images", tooltip="The same latent decoded by VAE Decode [B, H, W, 3]."),
        *more,
        io.Combo.Input("sd_version", options=list(legacy.VERSIONS), default="SDXL", tooltip="Which model family made the latent."),
        io.Int.Input("sub_batch_size", default=16, min=1, max=4096, step=1, tooltip="How many pictures are decoded together at most."),
    ]


class Apply(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LayeredDiffusionApply",
            "Layer Diffuse Apply",
            "LayerDiffuse Transparent. Patches a model to generate pictures with transparency.",
            [model("SD1.5 or SDXL"), config(legacy.APPLY, "Model family and method."), inputs.weight()],
            patched(),
        )

    @classmethod
    def execute(cls, model: ModelPatcher, config: str, weight: float) -> io.NodeOutput:
        return io.NodeOutput(legacy.apply_transparent(model, config, weight))


class JointApply(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LayeredDiffusionJointApply",
            "Layer Diffuse Joint Apply",
            "LayerDiffuse Joint, and Layer Prompts. Patches an SD1.5 model to generate foreground, background and both "
            "blended, in sets of three rows of the batch.",
            [
                model("SD1.5"),
                config(legacy.JOINT, "The batch size has to be a multiple of 3."),
                prompt("fg_cond", "foreground"),
                prompt("bg_cond", "background"),
                prompt("blended_cond", "blended"),
            ],
            patched(),
        )

    @classmethod
    def execute(
        cls, model: ModelPatcher, config: str, fg_cond: Prompt = None, bg_cond: Prompt = None, blended_cond: Prompt = None
    ) -> io.NodeOutput:
        return io.NodeOutput(legacy.apply_joint(model, (fg_cond, bg_cond, blended_cond)))


class CondApply(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return conditioned(
            "LayeredDiffusionCondApply",
            "Layer Diffuse Cond Apply",
            "LayerDiffuse Blend. Patches an SDXL model to generate a whole picture around or behind a given layer.",
        )

    @classmethod
    def execute(cls, model: ModelPatcher, cond: Prompt, uncond: Prompt, latent: Latent, config: str, weight: float) -> io.NodeOutput:
        return io.NodeOutput(legacy.apply_blend(model, latent, config, weight), cond, uncond)


class CondJointApply(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LayeredDiffusionCondJointApply",
            "Layer Diffuse Cond Joint Apply",
            "LayerDiffuse Joint From Layer, and Layer Prompts. Patches an SD1.5 model to generate the layer that is "
            "missing beside a given one, and both blended, in sets of two rows of the batch.",
            [
                model("SD1.5"),
                io.Image.Input("image", tooltip="The given layer [1, H, W, 3 or 4], any size."),
                config(legacy.COND_JOINT, "Which layer the given picture is. The batch size has to be a multiple of 2."),
                prompt("cond", "missing"),
                prompt("blended_cond", "blended"),
            ],
            patched(),
        )

    @classmethod
    def execute(cls, model: ModelPatcher, image: Tensor, config: str, cond: Prompt = None, blended_cond: Prompt = None) -> io.NodeOutput:
        return io.NodeOutput(legacy.apply_joint_from_layer(model, image, config, (cond, blended_cond)))


class DiffApply(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return conditioned(
            "LayeredDiffusionDiffApply",
            "Layer Diffuse Diff Apply",
            "LayerDiffuse Extract. Patches an SDXL model to take the other layer out of a blended picture.",
            io.Latent.Input("blended_latent", tooltip="The blended picture, encoded with the model's VAE."),
        )

    @classmethod
    def execute(
        cls, model: ModelPatcher, cond: Prompt, uncond: Prompt, blended_latent: Latent, latent: Latent, config: str, weight: float
    ) -> io.NodeOutput:
        return io.NodeOutput(legacy.apply_extract(model, latent, blended_latent, config, weight), cond, uncond)


class Decode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LayeredDiffusionDecode",
            "Layer Diffuse Decode",
            "Transparent VAE Decode, whose mask means the opposite. Gives colour and alpha apart.",
            decode_inputs(),
            io.Image.Output(display_name="IMAGE", tooltip="Colour alone [B, H, W, 3]."),
            io.Mask.Output(display_name="MASK", tooltip="Alpha [B, H, W], 1 = opaque: the opposite of ComfyUI's other masks."),
        )

    @classmethod
    def execute(cls, samples: Latent, images: Tensor, sd_version: str, sub_batch_size: int) -> io.NodeOutput:
        rgba = legacy.decode(samples["samples"], images, sd_version, sub_batch_size)
        return io.NodeOutput(rgba[..., :3], rgba[..., 3])


class DecodeRGBA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LayeredDiffusionDecodeRGBA",
            "Layer Diffuse Decode (RGBA)",
            "Transparent VAE Decode. Gives pictures with alpha.",
            decode_inputs(),
            io.Image.Output(display_name="IMAGE", tooltip="Pictures with straight alpha [B, H, W, 4]."),
        )

    @classmethod
    def execute(cls, samples: Latent, images: Tensor, sd_version: str, sub_batch_size: int) -> io.NodeOutput:
        return io.NodeOutput(legacy.decode(samples["samples"], images, sd_version, sub_batch_size))


class DecodeSplit(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        frames = io.Int.Input("frames", default=2, min=2, max=MOST_FRAMES, step=1, tooltip="How many layers make up a set.")
        return schema(
            "LayeredDiffusionDecodeSplit",
            "Layer Diffuse Decode (Split)",
            "Split Layers. Takes a batch of layers apart and gives the first one alpha.",
            decode_inputs(frames),
            io.Image.Output(display_name="first", tooltip="The first layer of each set, with straight alpha [sets, H, W, 4]."),
            io.Image.Output(display_name="second", tooltip="The second layer of each set, as it came in [sets, H, W, 3]."),
            io.Image.Output(display_name="third", tooltip="The third layer of each set, as it came in; nothing for 2 frames."),
        )

    @classmethod
    def execute(cls, samples: Latent, images: Tensor, frames: int, sd_version: str, sub_batch_size: int) -> io.NodeOutput:
        check_picture(images)
        first = legacy.decode(samples["samples"][::frames], images[::frames], sd_version, sub_batch_size)
        others = [images[position::frames] for position in range(1, frames)]
        missing = ExecutionBlocker(f"There are only {frames} layers. Set frames to {MOST_FRAMES}, or disconnect this output.")
        return io.NodeOutput(first, *others, *[missing] * (MOST_FRAMES - frames))


NODES = [checked(node) for node in (Apply, JointApply, CondApply, CondJointApply, DiffApply, Decode, DecodeRGBA, DecodeSplit)]


# Only where nothing would change without a word. A value that the new node does not know (SD15, say) makes the server name it, so that
# the artist chooses; inputs of the other nodes, such as prompts, would be lost.
REPLACEMENTS: list[dict[str, Any]] = [
    {
        "old_node_id": "LayeredDiffusionApply",
        "new_node_id": "DiaphaneTransparent",
        "old_widget_ids": ["config", "weight"],
        "input_mapping": [
            {"new_id": "model", "old_id": "model"},
            {"new_id": "method", "old_id": "config"},
            {"new_id": "weight", "old_id": "weight"},
            {"new_id": "start", "set_value": 0.0},
            {"new_id": "end", "set_value": 1.0},
        ],
        "output_mapping": [{"new_idx": 0, "old_idx": 0}],
    },
    {
        "old_node_id": "LayeredDiffusionDecodeRGBA",
        "new_node_id": "DiaphaneVAEDecode",
        "old_widget_ids": ["sd_version", "sub_batch_size"],
        "input_mapping": [
            {"new_id": "samples", "old_id": "samples"},
            {"new_id": "images", "old_id": "images"},
            {"new_id": "family", "old_id": "sd_version"},
            {"new_id": "passes", "set_value": 8},
            {"new_id": "tile_size", "set_value": 0},
        ],
        "output_mapping": [{"new_idx": 0, "old_idx": 0}],
    },
]
