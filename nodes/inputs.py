"""Inputs that several nodes have in common, so that they look and read the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comfy_api.latest import io

from ..lib_layerdiffuse.comfyui.alpha.alpha_vae import COLOURS, NETWORK
from ..lib_layerdiffuse.comfyui.alpha.codec import OFFSET_SCALE, PASS_CHOICES
from ..lib_layerdiffuse.comfyui.layers import BACKGROUND, CHOICES, FOREGROUND
from ..lib_layerdiffuse.comfyui.models.families import FAMILY_CHOICES
from ..lib_layerdiffuse.comfyui.models.weight_files import AUTO, file_choices
from ..lib_layerdiffuse.errors import DiaphaneError
from ..lib_layerdiffuse.pixels.composite import BLENDINGS, PHOTOSHOP
from ..lib_layerdiffuse.pixels.fit import CROP, FITS

CATEGORY = "layerdiffuse"
LAYERS = io.Custom("DIAPHANE_LAYERS")
COMFYUI_LAYERS = io.Custom("LAYERS")  # io.Layers, which ComfyUI has since 0.31
PICTURES_AND_LAYERS = [io.Image, LAYERS, COMFYUI_LAYERS]  # `checks.py` makes LAYERS of the last
ALIASES = ["LayerDiffuse", "Layer Diffuse", "transparent", "RGBA", "alpha"]


def model(families: str) -> io.Model.Input:
    return io.Model.Input("model", tooltip=f"An {families} model. LoRA, ControlNet and IPAdapter nodes may come before or after.")


def vae() -> io.Vae.Input:
    return io.Vae.Input("vae", tooltip="The ordinary VAE of the model.")


def weight() -> io.Float.Input:
    return io.Float.Input(
        "weight",
        default=1.0,
        min=-1.0,
        max=3.0,
        step=0.05,
        tooltip="Strength of the patch. 1 is what it was trained for; 0 leaves the model as it is.",
    )


def strength(end_hint: str = "") -> list[io.Input]:
    """The fields of a `Strength`."""

    def fraction(input_id: str, default: float, tooltip: str) -> io.Float.Input:
        return io.Float.Input(input_id, default=default, min=0.0, max=1.0, step=0.01, advanced=True, tooltip=tooltip)

    return [
        weight(),
        fraction("start", 0.0, "Fraction of the sampling at which the patch sets in. 0 = from the first step."),
        fraction("end", 1.0, "Fraction of the sampling at which the patch ends. 1 = after the last step." + end_hint),
    ]


class FileChoice(io.Combo.Input):
    """A choice among files, which come and go while ComfyUI runs."""


def is_there(find: Callable[[], Any], *names: Any) -> bool | str:
    """What ComfyUI asks about files before it runs anything: True, or what is wrong. Names that come over a wire are None then."""
    if None in names:
        return True
    try:
        find()
    except DiaphaneError as error:
        return str(error)
    return True


def weight_file(input_id: str, what: str) -> FileChoice:
    return FileChoice(
        input_id,
        options=file_choices(),
        default=AUTO,
        optional=True,
        advanced=True,
        tooltip=f"{what}. auto: the released file, fetched into models/layer_model on first use.",
    )


def family() -> io.Combo.Input:
    return _family(
        "Which model family made the latent. auto knows Flux, and SD1.5 by the layers that Empty Layer Latent names; "
        "anything else counts as SDXL. Set SD1.5 by hand when a plain latent comes from an SD1.5 model."
    )


def family_of_vae() -> io.Combo.Input:
    return _family(
        "Which model family the VAE belongs to. auto knows Flux; the VAEs of SD1.5 and SDXL look alike and count as SDXL, "
        "so set SD1.5 by hand."
    )


def _family(tooltip: str) -> io.Combo.Input:
    return io.Combo.Input("family", options=FAMILY_CHOICES, default=AUTO, tooltip=tooltip)


def filename_prefix(default: str) -> io.String.Input:
    return io.String.Input("filename_prefix", default=default, tooltip="As in Save Image: folder and beginning of the name, inside output.")


def passes() -> io.Combo.Input:
    return io.Combo.Input(
        "passes",
        options=PASS_CHOICES,
        default=8,
        advanced=True,
        tooltip="How many turned and mirrored estimates of alpha are combined. 8 is best, 1 is eight times as fast.",
    )


def colour() -> io.Combo.Input:
    return io.Combo.Input(
        "colour",
        options=list(COLOURS),
        default=NETWORK,
        optional=True,
        tooltip="network: the colours that the transparency decoder estimates, as published. picture: those of the picture that the VAE "
        "decodes, wherever it is opaque enough. Use picture after retouching a part, so that the rest keeps its colours.",
    )


def offset_scale() -> io.Float.Input:
    return io.Float.Input(
        "offset_scale",
        default=OFFSET_SCALE,
        min=0.0,
        max=1000.0,
        step=1.0,
        advanced=True,
        tooltip="Strength of the latent offset that carries alpha. 300 as released; 0 encodes the picture on mid-grey without alpha.",
    )


def layer_image(input_id: str, what: str) -> io.Image.Input:
    return io.Image.Input(input_id, tooltip=f"{what}: RGBA [B, H, W, 4] with straight alpha, or RGB. It is put on mid-grey here; any size.")


def mask(input_id: str = "mask", whose: str = "the picture's own") -> io.Mask.Input:
    return io.Mask.Input(input_id, optional=True, tooltip=f"1 = transparent, as Load Image gives it. Adds to {whose} transparency.")


def given() -> io.Combo.Input:
    return io.Combo.Input("given", options=[FOREGROUND, BACKGROUND], default=FOREGROUND, tooltip="Which layer the given picture is.")


def fit() -> io.Combo.Input:
    return io.Combo.Input(
        "fit",
        options=list(FITS),
        default=CROP,
        tooltip="How a picture of other proportions meets the generation: crop fills it and cuts the rest, fit shows all of it on grey, "
        "stretch distorts it.",
    )


def layers(with_auto: bool = False) -> io.Combo.Input:
    return io.Combo.Input(
        "layers",
        options=[AUTO, *CHOICES] if with_auto else CHOICES,
        default=AUTO if with_auto else CHOICES[0],
        tooltip=("auto: what the latent says. " if with_auto else "")
        + "All three for LayerDiffuse Joint; background, blended where a foreground is given; foreground, blended where a background is; "
        "foreground alone for LayerDiffuse Transparent.",
    )


def growing_layers(tooltip: str) -> io.Autogrow.Input:
    """One input more than is connected: layer0, layer1, …"""
    layer = io.MultiType.Input("layer", types=PICTURES_AND_LAYERS, tooltip=tooltip)
    return io.Autogrow.Input("layers", template=io.Autogrow.TemplatePrefix(layer, prefix="layer", min=1, max=50), tooltip=tooltip)


def blending(what: str) -> io.Combo.Input:
    return io.Combo.Input(
        "blending",
        options=list(BLENDINGS),
        default=PHOTOSHOP,
        optional=True,
        tooltip=f"How {what} is mixed. Photoshop mixes the colours as they are stored; ComfyUI's editor (Create Layered Image) in linear "
        "light, so that soft edges and low opacity come out lighter, and its blend modes draw nothing where all below is transparent.",
    )
