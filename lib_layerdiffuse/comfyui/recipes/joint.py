"""Layers generated together by a model of the SD1.5 family."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...errors import DiaphaneError
from ...pixels.fit import CROP
from ...pixels.straight import on_grey
from ...weights.catalogue import Family, Role
from ..layers import BACKGROUND, BLENDED, FOREGROUND, NAMES
from ..models.families import require_family
from ..models.weight_files import AUTO, weights_for
from ..patch.attention_sharing import GIVEN, check_arrangement, share_attention
from ..patch.generated import set_layers
from ..patch.strength import FULL, Strength

FROM_LAYER_ROLES = {FOREGROUND: Role.FOREGROUND_TO_BACKGROUND, BACKGROUND: Role.BACKGROUND_TO_FOREGROUND}


def make_joint(model: ModelPatcher, *, strength: Strength = FULL, file: str = AUTO) -> ModelPatcher:
    """A clone of `model` that generates sets of foreground, background and both blended."""
    family = require_family(
        model, "LayerDiffuse Joint", {Family.SD15: None, Family.SDXL: "Use LayerDiffuse Transparent, then LayerDiffuse Blend and Extract."}
    )
    with weights_for(model, family, Role.JOINT, file) as weights:
        check_arrangement(weights, frames=3, control=0)
        return set_layers(share_attention(model, weights, strength=strength), NAMES)


def make_joint_from_layer(
    model: ModelPatcher, rgba: Tensor, given: str, *, fit: str = CROP, strength: Strength = FULL, file: str = AUTO
) -> ModelPatcher:
    """A clone of `model` that generates the layer that is missing beside the given one, and both blended.

    rgba [1, H, W, 4] in [0, 1], float32, straight alpha: the given layer.
    """
    family = require_family(model, "LayerDiffuse Joint From Layer", {Family.SD15: None, Family.SDXL: "Use LayerDiffuse Blend."})
    if len(rgba) != 1:
        raise DiaphaneError(f"LayerDiffuse Joint From Layer works from one picture, got {len(rgba)}. Pick one with Get Image from Batch.")
    with weights_for(model, family, FROM_LAYER_ROLES[given], file) as weights:
        check_arrangement(weights, frames=2, control=GIVEN)
        patched = share_attention(model, weights, control=on_grey(rgba), strength=strength, fit=fit)
        return set_layers(patched, [BACKGROUND if given == FOREGROUND else FOREGROUND, BLENDED])
