"""Transparent VAE."""

from __future__ import annotations

from comfy_api.latest import io

from ..lib_layerdiffuse.comfyui.alpha.loading import offset_encoder, transparency_decoder
from ..lib_layerdiffuse.comfyui.alpha.transparent_vae import TransparentVAE, opaque_vae
from ..lib_layerdiffuse.comfyui.models.families import latent_family, require_vae
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
    def execute(cls, vae, family, passes, offset_scale, decoder_file=AUTO, encoder_file=AUTO) -> io.NodeOutput:
        vae = opaque_vae(vae)
        require_vae(vae, "Transparent VAE")
        known = latent_family(family, vae)
        decoder = transparency_decoder(vae, known, decoder_file)
        encoder = offset_encoder(vae, known, encoder_file)
        return io.NodeOutput(TransparentVAE(vae, decoder, encoder, passes=passes, offset_scale=offset_scale))


NODES = [TransparentVAENode]
