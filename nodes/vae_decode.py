"""Transparent VAE Decode."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ..lib_layerdiffuse.comfyui.alpha.codec import bleed
from ..lib_layerdiffuse.comfyui.alpha.decode_layers import decode_layers, transparent_layer
from ..lib_layerdiffuse.comfyui.alpha.transparent_vae import opaque_vae
from ..lib_layerdiffuse.comfyui.layers import LATENT_SCALE, foreground_rows
from ..lib_layerdiffuse.comfyui.messages import notes
from ..lib_layerdiffuse.comfyui.models.families import family_advice, latent_family, require_vae
from ..lib_layerdiffuse.comfyui.models.weight_files import AUTO
from ..lib_layerdiffuse.pixels.coverage import coverage
from ..lib_layerdiffuse.pixels.straight import transparency_mask
from . import hints, inputs

NEARLY_ALL = 0.999
MOSTLY = 0.95
FOR_OPAQUE = "prompt a plain background; raise the weight of LayerDiffuse Transparent, or use its conv method"
FOR_TRANSPARENT = "use a negative prompt; lower the weight"
FOR_TRANSLUCENT = "patch the model by LayerDiffuse Transparent; connect the VAE of the model that sampled"


class TransparentVAEDecode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneVAEDecode",
            display_name="Transparent VAE Decode",
            category=inputs.CATEGORY,
            description="Decodes a latent of a transparent model to a picture with alpha.",
            search_aliases=[*inputs.ALIASES, "Layer Diffuse Decode", "Layer Diffuse Decode (RGBA)", "decode alpha"],
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
    def execute(cls, samples, vae, family, passes, tile_size, images=None, decoder_file=AUTO) -> io.NodeOutput:
        vae = opaque_vae(vae)
        require_vae(vae, "Transparent VAE Decode")
        known = latent_family(family, vae, samples)
        rgba = decode_layers(vae, samples, images, family=known, decoder_file=decoder_file, passes=passes, tile=tile_size)
        doubt = family_advice(family, vae, samples)
        said = advice_on(rgba[foreground_rows(samples)], doubt)
        if not said and doubt and family == AUTO:
            height, width = samples["samples"].shape[2:]
            said = hints.on_small_size(height * LATENT_SCALE, width * LATENT_SCALE, doubt)
        said += hints.on_layer_with_alpha(transparent_layer(vae, samples, rgba, family=known, decoder_file=decoder_file))
        return io.NodeOutput(rgba, bleed(rgba), transparency_mask(rgba), ui=notes(*said))


def advice_on(rgba: Tensor, about_family: str | None) -> list[str]:
    """What helps when pictures [B, H, W, 4] that should be transparent in part are not.

    about_family: how to set it, where that is in doubt.
    """
    shares = [coverage(picture) for picture in rgba.split(1)]
    said = []
    for helps, picked in (
        (FOR_OPAQUE, [share.opaque > NEARLY_ALL for share in shares]),
        (FOR_TRANSPARENT, [share.transparent > NEARLY_ALL for share in shares]),
        (FOR_TRANSLUCENT, [share.partial > MOSTLY for share in shares]),
    ):
        if any(picked):
            which = "The picture is" if len(rgba) == 1 else f"{sum(picked)} of {len(rgba)} pictures:"
            what = f"{about_family}; {helps}" if about_family else helps
            if helps is FOR_OPAQUE and not all(picked):
                what += "; if LayerDiffuse Joint patched the model, set layers of Empty Layer Latent to what it generates"
            said.append(f"{which} {coverage(rgba[torch.tensor(picked)])}. What helps: {what}.")
    return said


NODES = [TransparentVAEDecode]
