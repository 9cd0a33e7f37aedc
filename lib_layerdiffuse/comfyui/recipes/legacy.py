"""What the deprecated nodes of the older pack need beyond the new ones: given layers as latents, prompts of layers as part of the model,
and decoding without a VAE.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import comfy.conds
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy.sd import VAE
from comfy.utils import repeat_to_batch_size
from torch import Tensor

from ...errors import DiaphaneError
from ...pixels.fit import fit_to
from ...pixels.straight import with_alpha
from ...weights.catalogue import Family, Role
from ..alpha.codec import decode_rgba
from ..alpha.latents import check_latent
from ..alpha.loading import transparency_decoder
from ..layers import BACKGROUND, BLENDED, FOREGROUND
from ..models.families import require_family
from ..models.weight_files import weights_for
from ..patch.deltas import apply_deltas
from ..patch.generated import set_layers
from ..patch.strength import Strength
from . import blend_extract, joint
from .transparent import ATTENTION, CONV, make_transparent

LATENT_CHANNELS = 4  # of SD1.5 and SDXL, the only families that the older pack knew

# What the older pack's workflows have saved in their combos, and what it means.
APPLY = {
    "SDXL, Attention Injection": (Family.SDXL, ATTENTION),
    "SDXL, Conv Injection": (Family.SDXL, CONV),
    "SD15, Attention Injection, attn_sharing": (Family.SD15, ATTENTION),
}
JOINT = ["SD15, attn_sharing, Batch size (3N)"]
COND_JOINT = {
    "SD15, Foreground, attn_sharing, Batch size (2N)": FOREGROUND,
    "SD15, Background, attn_sharing, Batch size (2N)": BACKGROUND,
}
GIVEN = {"SDXL, Foreground": FOREGROUND, "SDXL, Background": BACKGROUND}
VERSIONS = {"SD15": Family.SD15, "SDXL": Family.SDXL}


def apply_transparent(model: ModelPatcher, config: str, weight: float) -> ModelPatcher:
    """A clone of `model` that generates transparent pictures. Raises DiaphaneError if config and model are of different families.

    weight: without effect for SD1.5, as in the older pack, whose workflows have values there that were never used.
    """
    family, method = APPLY[config]
    others = {other: f"Set config to {name}." for name, (other, _) in APPLY.items() if other is not family}
    require_family(model, "Layer Diffuse Apply", {**others, family: None})
    return make_transparent(model, method=method, strength=Strength(1.0 if family is Family.SD15 else weight))


def apply_joint(model: ModelPatcher, prompts: Sequence[Any]) -> ModelPatcher:
    """A clone of `model` that generates sets of foreground, background and both blended.

    prompts: a CONDITIONING or None for each of the three, which takes the place of the positive prompt's text in that layer.
    """
    require_family(model, "Layer Diffuse Joint Apply", {Family.SD15: None, Family.SDXL: "Use Layer Diffuse Apply."})
    return _prompted(joint.make_joint(model), prompts)


def apply_joint_from_layer(model: ModelPatcher, image: Tensor, config: str, prompts: Sequence[Any]) -> ModelPatcher:
    """A clone of `model` that generates the layer that is missing beside `image` [1, H, W, 3 or 4], and both blended."""
    require_family(model, "Layer Diffuse Cond Joint Apply", {Family.SD15: None, Family.SDXL: "Use Layer Diffuse Cond Apply."})
    return _prompted(joint.make_joint_from_layer(model, with_alpha(image), COND_JOINT[config]), prompts)


def apply_blend(model: ModelPatcher, latent: Mapping[str, Any], config: str, weight: float) -> ModelPatcher:
    """A clone of `model` that generates whole pictures around or behind a given layer, which is a LATENT here."""
    return set_layers(_given(model, "Layer Diffuse Cond Apply", blend_extract.BLEND_ROLES[GIVEN[config]], weight, latent), [BLENDED])


def apply_extract(model: ModelPatcher, latent: Mapping[str, Any], blended: Mapping[str, Any], config: str, weight: float) -> ModelPatcher:
    """A clone of `model` that generates the other layer of a blended picture; config says which one `latent` is."""
    wanted = BACKGROUND if GIVEN[config] == FOREGROUND else FOREGROUND
    patched = _given(model, "Layer Diffuse Diff Apply", blend_extract.EXTRACT_ROLES[wanted], weight, latent, blended)
    return set_layers(patched, [wanted])


def _given(model: ModelPatcher, node: str, role: Role, weight: float, *latents: Mapping[str, Any]) -> ModelPatcher:
    """A clone of `model` that sees LATENTs beside the noise: all at the size of the first, and as many of each as the longest batch has."""
    way_out = "Use Layer Diffuse Cond Joint Apply with the picture itself."
    family = require_family(model, node, {Family.SDXL: None, Family.SD15: way_out})
    with weights_for(model, family, role) as weights:
        return apply_deltas(model, weights, strength=Strength(weight), extra=_concat(model, [latent["samples"] for latent in latents]))


def _concat(model: ModelPatcher, latents: Sequence[Tensor]) -> Tensor:
    needed = model.model.latent_format.latent_channels
    wrong = f"A given latent has {{}} channels, the model works with {needed}. Encode it with the model's own VAE."
    for latent in latents:
        check_latent(latent, needed, wrong)
    count = max(map(len, latents))
    height, width = latents[0].shape[2:]
    fitted = [fit_to(latent, height, width) for latent in latents]
    return torch.cat([model.model.process_latent_in(repeat_to_batch_size(latent, count)) for latent in fitted], dim=1)


def decode(samples: Tensor, images: Tensor, version: str, at_once: int) -> Tensor:
    """Colour and alpha of decoded pictures: latents [B, 4, h, w], images [B, H, W, 3] -> [B, H, W, 4] in [0, 1], straight alpha.

    at_once: how many pictures are decoded together at most. Raises DiaphaneError for latents of another kind or number.
    """
    wrong = f"Layer Diffuse Decode works with latents of {LATENT_CHANNELS} channels, SD1.5's and SDXL's, got {{}}. "
    check_latent(samples, LATENT_CHANNELS, wrong + "Use Transparent VAE Decode for Flux.")
    pixels = with_alpha(images)[..., :3]
    if len(samples) != len(images):
        raise DiaphaneError(
            f"Got {len(images)} images and {len(samples)} latents. Connect the images that were decoded from these latents."
        )
    decoder = transparency_decoder(_no_vae(version), VERSIONS[version])
    pairs = zip(pixels.split(at_once), samples.split(at_once), strict=True)
    return torch.cat([decode_rgba(decoder, pixel, latent) for pixel, latent in pairs])


class _NoVAE:
    """Takes the place of the VAE, which is no input of those nodes."""

    latent_channels = LATENT_CHANNELS


@lru_cache(maxsize=1)
def _no_vae(version: str) -> VAE:
    """The VAE that a version's network is kept with, from run to run, until another version is decoded. (Each network has 208 MB.)"""
    return cast(VAE, _NoVAE())


# --- prompts of layers ------------------------------------------------------------------------------------------------------------------


def _prompted(patched: ModelPatcher, prompts: Sequence[Any]) -> ModelPatcher:
    """`patched`, a clone that we own, with texts of its own for some of its layers."""
    texts = [None if prompt is None else prompt[0][0][:1] for prompt in prompts]
    if any(text is not None for text in texts):
        patched.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, f"diaphane.{uuid.uuid4().hex}", LayerTexts(texts))
    return patched


class LayerTexts:
    """Texts [1, T, D] that take the place of the positive prompt's in the rows of their layers (docs/facts.md section 6)."""

    def __init__(self, texts: Sequence[Tensor | None]):
        self.texts = texts

    def __call__(self, executor: Callable[..., Any], model: Any, conds: list[Any], x: Tensor, *args: Any) -> Any:
        positive = None if conds[0] is None else [self._given_to(entry) for entry in conds[0]]
        return executor(model, [positive, *conds[1:]], x, *args)

    def _given_to(self, entry: dict[str, Any]) -> dict[str, Any]:
        text = self.rows(entry["model_conds"]["c_crossattn"].cond)
        return {**entry, "model_conds": {**entry["model_conds"], "c_crossattn": comfy.conds.CONDCrossAttn(text)}}

    def rows(self, base: Tensor) -> Tensor:
        """One text per row of the batch [n, T, D], n layers or a multiple of that. Unequal lengths are repeated to a common one."""
        length = math.lcm(base.shape[1], *(text.shape[1] for text in self.texts if text is not None))
        layers = len(self.texts)
        rows = repeat_to_batch_size(base, math.lcm(len(base), layers)).repeat(1, length // base.shape[1], 1)
        for layer, text in enumerate(self.texts):
            if text is not None:
                rows[layer::layers] = text.to(rows).repeat(1, length // text.shape[1], 1)
        return rows
