"""Transparent VAE Encode."""

from __future__ import annotations

from comfy.sd import VAE
from comfy_api.latest import io
from torch import Tensor

from ..lib_layerdiffuse.comfyui.alpha.alpha_vae import AlphaVAE
from ..lib_layerdiffuse.comfyui.messages import notes
from ..lib_layerdiffuse.comfyui.models.weight_files import AUTO
from ..lib_layerdiffuse.pixels.straight import with_alpha
from . import hints, inputs


class TransparentVAEEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneVAEEncode",
            display_name="Transparent VAE Encode",
            category=inputs.CATEGORY,
            description="Encodes a transparent picture, colour and alpha, for image-to-image with a transparent model.",
            search_aliases=[*inputs.ALIASES, "image to image", "img2img", "encode alpha", "cut-out"],
            inputs=[
                io.Image.Input("image", tooltip="Picture with alpha [B, H, W, 4], straight, any size. Without alpha, connect a mask."),
                io.Vae.Input("vae", tooltip="The ordinary VAE of the model that will sample."),
                inputs.mask(),
                inputs.family_of_vae(),
                inputs.offset_scale(),
                inputs.weight_file("encoder_file", "Offset encoder"),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent", tooltip="Latent that holds colour and alpha; Transparent VAE Decode gives the same size back."
                )
            ],
        )

    @classmethod
    def execute(
        cls, image: Tensor, vae: VAE, family: str, offset_scale: float, mask: Tensor | None = None, encoder_file: str = AUTO
    ) -> io.NodeOutput:
        alpha = AlphaVAE.of(vae, "Transparent VAE Encode", family, encoder_file=encoder_file)
        rgba = with_alpha(image, mask)
        latent = alpha.encode(rgba, offset_scale=offset_scale)
        height, width = rgba.shape[1:3]
        said = hints.on_opaque(rgba, mask) + hints.on_small_size(height, width, alpha.advice)
        return io.NodeOutput(latent, ui=notes(*said))


NODES = [TransparentVAEEncode]
