"""Transparent VAE Decode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy.sd import VAE
from comfy_api.latest import io
from torch import Tensor

from ..lib_layerdiffuse.comfyui.alpha.alpha_vae import NETWORK, AlphaVAE
from ..lib_layerdiffuse.comfyui.alpha.codec import bleed
from ..lib_layerdiffuse.comfyui.layers import LATENT_SCALE
from ..lib_layerdiffuse.comfyui.messages import notes
from ..lib_layerdiffuse.comfyui.models.weight_files import AUTO
from ..lib_layerdiffuse.pixels.straight import transparency_mask
from . import hints, inputs


class TransparentVAEDecode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneVAEDecode",
            display_name="Transparent VAE Decode",
            category=inputs.CATEGORY,
            description="Decodes a latent of a transparent model to a picture with alpha.",
            search_aliases=[*inputs.ALIASES, "Layer Diffuse Decode", "Layer Diffuse Decode (RGBA)", "decode alpha", "retouch"],
            inputs=[
                io.Latent.Input("samples", tooltip="Latent from a sampler whose model was patched by a LayerDiffuse node."),
                io.Vae.Input("vae", tooltip="The ordinary VAE of the model that sampled."),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="The same latent decoded by VAE Decode, perhaps retouched or upscaled, but not the output rgb: "
                    "colour and alpha are read from these pixels.",
                ),
                inputs.family(),
                inputs.passes(),
                io.Int.Input(
                    "tile_size",
                    default=0,
                    min=0,
                    max=8192,
                    step=64,
                    advanced=True,
                    tooltip="Side of the tiles in pixels that alpha is estimated in. 0: the whole picture; tiles only if memory runs out.",
                ),
                inputs.weight_file("decoder_file", "Transparency decoder"),
                inputs.colour(),
            ],
            outputs=[
                io.Image.Output(
                    display_name="rgba", tooltip="Picture with straight alpha [B, H, W, 4], alpha 1 = opaque. Save Image keeps it."
                ),
                io.Image.Output(
                    display_name="rgb", tooltip="Opaque picture [B, H, W, 3]: its colour is carried on under transparent pixels."
                ),
                io.Mask.Output(display_name="mask", tooltip="1 = transparent, as Load Image and Join Image with Alpha have it [B, H, W]."),
            ],
        )

    @classmethod
    def execute(
        cls,
        samples: Mapping[str, Any],
        vae: VAE,
        family: str,
        passes: int,
        tile_size: int,
        images: Tensor | None = None,
        decoder_file: str = AUTO,
        colour: str = NETWORK,
    ) -> io.NodeOutput:
        alpha = AlphaVAE.of(vae, "Transparent VAE Decode", family, samples, decoder_file=decoder_file)
        decoded = alpha.decode(samples, images, passes=passes, tile=tile_size, colour=colour)
        rgba = decoded.rgba
        height, width = (side * LATENT_SCALE for side in samples["samples"].shape[2:])
        said = hints.on_odd_alpha(rgba[decoded.foreground], alpha.advice) or hints.on_small_size(height, width, alpha.advice)
        said += hints.on_layer_with_alpha(decoded.stray)
        return io.NodeOutput(rgba, bleed(rgba), transparency_mask(rgba), ui=notes(*said))


NODES = [TransparentVAEDecode]
