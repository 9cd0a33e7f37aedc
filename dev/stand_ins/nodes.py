"""The loader nodes. Each stands in for one of the host's and has its outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from comfy_api.latest import ComfyExtension, io
from typing_extensions import override

from .models import build_clip, build_controlnet, build_model
from .report import report
from .shapes import FAMILIES
from .upscaler import Upscaler
from .vae import build_vae


def _node(
    name: str, description: str, inputs: list[io.Input], outputs: list[io.Output], run: Callable[..., io.NodeOutput]
) -> type[io.ComfyNode]:
    """The node StandInNAME; without outputs it ends a prompt."""

    class Node(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            return io.Schema(
                node_id=f"StandIn{name}",
                display_name=f"Stand-In {name}",
                category="layerdiffuse/stand-ins",
                description=description,
                inputs=inputs,
                outputs=outputs,
                is_output_node=not outputs,
            )

        @classmethod
        def execute(cls, **values: Any) -> io.NodeOutput:
            return run(**values)

    return Node


def _loader(
    name: str, outputs: list[io.Output], load: Callable[[str, int], Sequence[Any]], families: Sequence[str] = FAMILIES
) -> type[io.ComfyNode]:
    """load(family, seed) -> one value for each output."""
    inputs = [
        io.Combo.Input("family", options=list(families), tooltip="Architecture to stand in for."),
        io.Int.Input("seed", default=0, min=0, max=2**32 - 1, control_after_generate=False, tooltip="One seed, one model."),
    ]
    description = "Small and made up, in the place of what a loader of ComfyUI gives."
    return _node(name, description, inputs, outputs, lambda family, seed: io.NodeOutput(*load(family, seed)))


_RUN = io.Int.Input("run", default=0, min=0, tooltip="Number of the run.")
NODES = [
    _loader(
        "Checkpoint",
        [io.Model.Output(display_name="MODEL"), io.Clip.Output(display_name="CLIP"), io.Vae.Output(display_name="VAE")],
        lambda *which: (build_model(*which), build_clip(*which), build_vae(*which)),
    ),
    _loader("Model", [io.Model.Output(display_name="MODEL")], lambda *which: [build_model(*which)]),
    _loader("CLIP", [io.Clip.Output(display_name="CLIP")], lambda *which: [build_clip(*which)]),
    _loader("VAE", [io.Vae.Output(display_name="VAE")], lambda *which: [build_vae(*which)]),
    _loader("ControlNet", [io.ControlNet.Output(display_name="CONTROL_NET")], lambda *which: [build_controlnet(*which)], ("SDXL", "SD1.5")),
    _loader("Upscaler", [io.UpscaleModel.Output(display_name="UPSCALE_MODEL")], lambda *_: [Upscaler()]),
    _node(
        "Again",
        "Gives back its input, as a new result in every run: what comes after it is then not taken from the cache.",
        [io.Latent.Input("samples"), _RUN],
        [io.Latent.Output(display_name="LATENT")],
        lambda samples, run: io.NodeOutput(samples),
    ),
    _node(
        "Report",
        "Unloads all models and says what is left in this one, as its loader gave it, and in memory.",
        [io.Model.Input("model"), _RUN],
        [],
        lambda model, run: io.NodeOutput(ui={"report": [report(model)]}),
    ),
]


class StandIns(ComfyExtension):
    @override
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
