"""The loader nodes. Each stands in for one of the host's and has its outputs."""

from __future__ import annotations

from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import ComfyExtension, io
from typing_extensions import override

from .models import build_clip, build_controlnet, build_model
from .report import report
from .shapes import FAMILIES
from .upscaler import Upscaler
from .vae import build_vae

_CATEGORY = "layerdiffuse/stand-ins"


def _inputs(families: tuple[str, ...] = FAMILIES) -> list[io.Input]:
    return [
        io.Combo.Input("family", options=list(families), tooltip="Architecture to stand in for."),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**32 - 1,
            control_after_generate=False,
            tooltip="Picks the made-up weights. The same seed always gives the same model.",
        ),
    ]


class Checkpoint(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StandInCheckpoint",
            display_name="Stand-In Checkpoint",
            category=_CATEGORY,
            description="A small model with made-up weights, in the place of Load Checkpoint.",
            inputs=_inputs(),
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="Narrow diffusion model."),
                io.Clip.Output(display_name="CLIP", tooltip="Narrow text encoders."),
                io.Vae.Output(display_name="VAE", tooltip="Average pooling and nearest upsampling."),
            ],
        )

    @classmethod
    def execute(cls, family: str, seed: int) -> io.NodeOutput:
        return io.NodeOutput(build_model(family, seed), build_clip(family, seed), build_vae(family, seed))


class DiffusionModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StandInModel",
            display_name="Stand-In Model",
            category=_CATEGORY,
            description="A small diffusion model with made-up weights, in the place of Load Diffusion Model.",
            inputs=_inputs(),
            outputs=[io.Model.Output(display_name="MODEL", tooltip="Narrow diffusion model.")],
        )

    @classmethod
    def execute(cls, family: str, seed: int) -> io.NodeOutput:
        return io.NodeOutput(build_model(family, seed))


class TextEncoders(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StandInCLIP",
            display_name="Stand-In CLIP",
            category=_CATEGORY,
            description="Small text encoders with made-up weights, in the place of Load CLIP and DualCLIPLoader.",
            inputs=_inputs(),
            outputs=[io.Clip.Output(display_name="CLIP", tooltip="Narrow text encoders.")],
        )

    @classmethod
    def execute(cls, family: str, seed: int) -> io.NodeOutput:
        return io.NodeOutput(build_clip(family, seed))


class Autoencoder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StandInVAE",
            display_name="Stand-In VAE",
            category=_CATEGORY,
            description="A VAE that pools and repeats pixels, in the place of Load VAE.",
            inputs=_inputs(),
            outputs=[io.Vae.Output(display_name="VAE", tooltip="Average pooling and nearest upsampling.")],
        )

    @classmethod
    def execute(cls, family: str, seed: int) -> io.NodeOutput:
        return io.NodeOutput(build_vae(family, seed))


class Control(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StandInControlNet",
            display_name="Stand-In ControlNet",
            category=_CATEGORY,
            description="A small ControlNet with made-up weights, in the place of Load ControlNet Model.",
            inputs=_inputs(("SDXL", "SD1.5")),
            outputs=[io.ControlNet.Output(display_name="CONTROL_NET", tooltip="Narrow ControlNet.")],
        )

    @classmethod
    def execute(cls, family: str, seed: int) -> io.NodeOutput:
        return io.NodeOutput(build_controlnet(family, seed))


class UpscaleModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StandInUpscaler",
            display_name="Stand-In Upscale Model",
            category=_CATEGORY,
            description="Bicubic enlargement, in the place of Load Upscale Model.",
            inputs=_inputs(),
            outputs=[io.UpscaleModel.Output(display_name="UPSCALE_MODEL", tooltip="Enlarges four times.")],
        )

    @classmethod
    def execute(cls, family: str, seed: int) -> io.NodeOutput:
        return io.NodeOutput(Upscaler())


class Again(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StandInAgain",
            display_name="Stand-In Again",
            category=_CATEGORY,
            description="Gives back its input, as a new result in every run: what comes after it is then not taken from the cache.",
            inputs=[
                io.Latent.Input("samples", tooltip="What to give back."),
                io.Int.Input("run", default=0, min=0, tooltip="Number of the run."),
            ],
            outputs=[io.Latent.Output(display_name="LATENT", tooltip="The input.")],
        )

    @classmethod
    def execute(cls, samples: dict[str, Any], run: int) -> io.NodeOutput:
        return io.NodeOutput(samples)


class Report(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StandInReport",
            display_name="Stand-In Report",
            category=_CATEGORY,
            description="Unloads all models and says what is left in this one, and in memory.",
            inputs=[
                io.Model.Input("model", tooltip="As its loader gave it."),
                io.Int.Input("run", default=0, min=0, tooltip="Number of the run."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model: ModelPatcher, run: int) -> io.NodeOutput:
        return io.NodeOutput(ui={"report": [report(model)]})


class StandIns(ComfyExtension):
    @override
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [Checkpoint, DiffusionModel, TextEncoders, Autoencoder, Control, UpscaleModel, Again, Report]
