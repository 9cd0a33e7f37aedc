"""Transparent VAE Decode."""

from __future__ import annotations

from comfy_api.latest import io

from ..lib_layerdiffuse.host.decode import decode_layers
from ..lib_layerdiffuse.host.families import latent_family, require_vae
from ..lib_layerdiffuse.host.layers import foreground_rows
from ..lib_layerdiffuse.host.messages import notes
from ..lib_layerdiffuse.host.transparency import bleed
from ..lib_layerdiffuse.host.transparent_vae import opaque_vae
from ..lib_layerdiffuse.host.weight_files import AUTO
from ..lib_layerdiffuse.pixels.coverage import Coverage, coverage
from ..lib_layerdiffuse.pixels.straight import transparency_mask
from . import inputs

NEARLY_ALL = 0.999


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
                    tooltip="The same latent already decoded, perhaps retouched or upscaled: colour and alpha are read from these pixels.",
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
        advice = [advice_on(coverage(picture)) for picture in rgba[foreground_rows(samples)].split(1)]
        return io.NodeOutput(rgba, bleed(rgba), transparency_mask(rgba), ui=notes(*filter(None, advice)))


def advice_on(share: Coverage) -> str | None:
    """What helps when a picture that should be transparent in part is not."""
    if share.opaque > NEARLY_ALL:
        return (
            f"The picture is {share}. What helps: set family to the model's own; prompt a plain background; raise the weight of "
            "LayerDiffuse Transparent, or use its conv method."
        )
    if share.transparent > NEARLY_ALL:
        return f"The picture is {share}. What helps: set family to the model's own; use a negative prompt; lower the weight."
    return None


NODES = [TransparentVAEDecode]
