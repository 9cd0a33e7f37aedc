"""LayerDiffuse Shape."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from comfy_api.latest import io
from torch import Tensor

from ..lib_layerdiffuse.comfyui.models.weight_files import AUTO
from ..lib_layerdiffuse.comfyui.recipes.shape import make_shape
from . import inputs

CORRECTIONS = [2, 4, 8]


class LayerDiffuseShape(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneShape",
            display_name="LayerDiffuse Shape",
            category=inputs.CATEGORY,
            description="Patches a model so that its transparent layer lies in a painted area, as exactly as you like. "
            "Place it before or after LayerDiffuse Transparent, Joint, Joint From Layer or Extract.",
            search_aliases=[*inputs.ALIASES, "area", "region", "where", "inpaint", "SmartBrush", "brush", "silhouette", "mask to layer"],
            inputs=[
                inputs.model("SD1.5, SDXL or FLUX.1"),
                inputs.vae(),
                io.Mask.Input(
                    "area", tooltip="1 = here, as in a painted mask, not 1 = transparent. One for all layers, or one for each. Any size."
                ),
                io.Float.Input(
                    "precision",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="1: the layer fills the area. 0: it lies anywhere in it. In between, it covers the middle of the area.",
                ),
                inputs.fit(),
                io.Float.Input(
                    "strength",
                    default=2.0,
                    min=0.0,
                    max=4.0,
                    step=0.1,
                    advanced=True,
                    tooltip="Strength of each correction. Raise it if the layer does not follow the area; 0 leaves the model as it is.",
                ),
                io.Combo.Input(
                    "corrections",
                    options=CORRECTIONS,
                    default=4,
                    advanced=True,
                    tooltip="How many corrections are made. Each decodes the layer, changes it and encodes it: about two steps' time.",
                ),
                io.Float.Input(
                    "end",
                    default=0.4,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    advanced=True,
                    tooltip="Fraction of the sampling until which corrections are made. 0 leaves the model as it is.",
                ),
                inputs.weight_file("decoder_file", "Transparency decoder"),
                inputs.weight_file("encoder_file", "Offset encoder"),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model", tooltip="Generates the layer in the area. Repair Alpha with the same area makes its edge exact."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        vae: VAE,
        area: Tensor,
        precision: float,
        fit: str,
        strength: float,
        corrections: int,
        end: float,
        decoder_file: str = AUTO,
        encoder_file: str = AUTO,
    ) -> io.NodeOutput:
        patched = make_shape(
            model,
            vae,
            area,
            precision=precision,
            fit=fit,
            strength=strength,
            corrections=corrections,
            end=end,
            decoder_file=decoder_file,
            encoder_file=encoder_file,
        )
        return io.NodeOutput(patched)


NODES = [LayerDiffuseShape]
