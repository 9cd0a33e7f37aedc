"""Empty Transparent Latent."""

from __future__ import annotations

from comfy.sd import VAE
from comfy_api.latest import io
from torch import Tensor

from ..lib_layerdiffuse.comfyui.alpha.alpha_vae import AlphaVAE
from ..lib_layerdiffuse.comfyui.messages import notes
from . import hints, inputs


class EmptyTransparentLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneEmptyTransparent",
            display_name="Empty Transparent Latent",
            category=inputs.CATEGORY,
            description="A latent of a fully transparent picture. With an area, a transparent model paints its object there, as a layer.",
            search_aliases=[*inputs.ALIASES, "Empty Latent Image", "inpaint", "noise mask", "new object", "area", "empty layer"],
            inputs=[
                io.Vae.Input("vae", tooltip="The ordinary VAE of the model that will sample."),
                io.Mask.Input(
                    "area",
                    optional=True,
                    tooltip="Where the object belongs: 1 = here, as painted in Painter or a mask editor, not 1 = transparent. "
                    "If nothing is painted, it may be anywhere.",
                ),
                io.Int.Input("width", default=1024, min=64, max=8192, step=8, tooltip="Width in pixels, that of the background below."),
                io.Int.Input("height", default=1024, min=64, max=8192, step=8, tooltip="Height in pixels, that of the background below."),
                io.Int.Input("batch_size", default=1, min=1, max=64, tooltip="How many pictures to generate."),
                inputs.family_of_vae(),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent", tooltip="Nothing yet; the area is its noise mask. Transparent VAE Decode gives the same size."
                )
            ],
        )

    @classmethod
    def execute(cls, vae: VAE, width: int, height: int, batch_size: int, family: str, area: Tensor | None = None) -> io.NodeOutput:
        alpha = AlphaVAE.of(vae, "Empty Transparent Latent", family)
        latent = alpha.empty(height, width, batch_size, area)
        said = hints.on_nothing_painted(area) + hints.on_small_size(height, width, alpha.advice)
        return io.NodeOutput(latent, ui=notes(*said))


NODES = [EmptyTransparentLatent]
