"""Layers generated one after another by a model of the SDXL family: around, behind or out of given ones."""

from __future__ import annotations

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from torch import Tensor

from ...errors import DiaphaneError
from ...pixels.fit import CROP, FIT, fit_to
from ...pixels.straight import on_grey
from ...weights.catalogue import Family, Role
from ..layers import BACKGROUND, BLENDED, FOREGROUND, LATENT_SCALE
from ..models.families import require_family, require_vae_of
from ..models.weight_files import AUTO, weights_for
from ..patch.concat_latent import ConcatLatent
from ..patch.deltas import apply_deltas
from ..patch.generated import set_layers
from ..patch.strength import FULL, Strength

BLEND, EXTRACT = "LayerDiffuse Blend", "LayerDiffuse Extract"

NO_EXTRACTION = (
    "No such weights exist for SD1.5. Generate its layers together: all by LayerDiffuse Joint, those beside a given one by "
    "LayerDiffuse Joint From Layer."
)

BLEND_ROLES = {FOREGROUND: Role.FOREGROUND_TO_BLENDED, BACKGROUND: Role.BACKGROUND_TO_BLENDED}
EXTRACT_ROLES = {BACKGROUND: Role.FOREGROUND_BLENDED_TO_BACKGROUND, FOREGROUND: Role.BACKGROUND_BLENDED_TO_FOREGROUND}


def make_blend(
    model: ModelPatcher, vae: VAE, rgba: Tensor, given: str, *, fit: str = CROP, strength: Strength = FULL, file: str = AUTO
) -> ModelPatcher:
    """A clone of `model` that generates whole pictures around a given foreground or in front of a given background.

    rgba [B, H, W, 4] in [0, 1], float32, straight alpha: the given layer.
    """
    family = require_family(model, BLEND, {Family.SDXL: None, Family.SD15: "Use LayerDiffuse Joint From Layer."})
    concat = _encoded(model, vae, [rgba], fit, BLEND)
    with weights_for(model, family, BLEND_ROLES[given], file) as weights:
        return set_layers(apply_deltas(model, weights, strength=strength, extra=concat), [BLENDED])


def make_extract(
    model: ModelPatcher,
    vae: VAE,
    blended: Tensor,
    layer: Tensor,
    wanted: str,
    *,
    fit: str = CROP,
    strength: Strength = FULL,
    file: str = AUTO,
) -> ModelPatcher:
    """A clone of `model` that generates the layer which, with the given one, makes up the blended picture.

    blended, layer: [B, H, W, 4] in [0, 1], float32, straight alpha; layer is the background if the foreground is wanted, and the other
    way round.
    """
    family = require_family(model, EXTRACT, {Family.SDXL: None, Family.SD15: NO_EXTRACTION})
    concat = _encoded(model, vae, [layer, blended], fit, EXTRACT)
    with weights_for(model, family, EXTRACT_ROLES[wanted], file) as weights:
        return set_layers(apply_deltas(model, weights, strength=strength, extra=concat), [wanted])


def _encoded(model: ModelPatcher, vae: VAE, pictures: list[Tensor], fit: str, node: str) -> ConcatLatent:
    """Pictures [B or 1, H, W, 4] as latents that the model sees beside the noise, all at the size of the first."""
    require_vae_of(model, vae, node)
    count = max(map(len, pictures))
    if any(len(rgba) not in (1, count) for rgba in pictures):
        raise DiaphaneError(f"{node} got {' and '.join(str(len(p)) for p in pictures)} pictures. Give it as many of each, or one.")
    height, width = (max(LATENT_SCALE, side // LATENT_SCALE * LATENT_SCALE) for side in pictures[0].shape[1:3])
    process = model.model.process_latent_in
    latents = []
    for rgba in pictures:
        grey = fit_to(on_grey(rgba).movedim(-1, 1), height, width, fit, fill=0.5).movedim(1, -1)
        latents.append(process(vae.encode(grey)).expand(count, -1, -1, -1))
    fill: Tensor | float = 0.0
    if fit == FIT:
        fill = process(vae.encode(torch.full((1, 64, 64, 3), 0.5))).mean(dim=(0, 2, 3)).repeat(len(pictures))
    return ConcatLatent(torch.cat(latents, dim=1), fit, fill)
