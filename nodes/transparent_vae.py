"""Transparent VAE."""

from __future__ import annotations

from comfy.sd import VAE
from comfy_api.latest import io

from ..lib_layerdiffuse.comfyui.alpha.alpha_vae import AlphaVAE
from ..lib_layerdiffuse.comfyui.alpha.transparent_vae import TransparentVAE
from ..lib_layerdiffuse.comfyui.models.weight_files import AUTO
from . import inputs


class TransparentVAENode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneVAE",
            display_name="Transparent VAE",
            category=inputs.CATEGORY,
            description="Makes a VAE transparent: VAE Decode gives RGBA with it and VAE Encode takes it, in second passes too. "
            "Detailers and upscalers that cut pictures to RGB lose alpha with any VAE; the help page has ways round.",
            search_aliases=[*inputs.ALIASES, "VAE", "drop-in", "detailer", "hires"],
            inputs=[
                io.Vae.Input("vae", tooltip="The ordinary VAE of an SD1.5, SDXL or Flux model."),
                inputs.family_of_vae(),
                inputs.passes(),
                inputs.offset_scale(),
                inputs.weight_file("decoder_file", "Transparency decoder"),
                inputs.weight_file("encoder_file", "Offset encoder"),
            ],
            outputs=[io.Vae.Output(display_name="transparent_vae", tooltip="Decodes to RGBA, encodes RGB or RGBA; straight alpha.")],
        )

    @classmethod
    def execute(
        cls, vae: VAE, family: str, passes: int, offset_scale: float, decoder_file: str = AUTO, encoder_file: str = AUTO
    ) -> io.NodeOutput:
        alpha = AlphaVAE.of(vae, "Transparent VAE", family, decoder_file=decoder_file, encoder_file=encoder_file)
        return io.NodeOutput(TransparentVAE(alpha.vae, alpha.decoder, alpha.encoder, passes=passes, offset_scale=offset_scale))


NODES = [TransparentVAENode]
