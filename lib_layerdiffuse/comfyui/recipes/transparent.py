"""Patching a model of any supported family to generate transparent pictures."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher

from ...errors import DiaphaneError
from ...weights.catalogue import Family, Role
from ..layers import FOREGROUND
from ..models.families import require_family
from ..models.weight_files import AUTO, weights_for
from ..patch.attention_sharing import check_arrangement, share_attention
from ..patch.deltas import apply_deltas
from ..patch.generated import set_layers
from ..patch.lora import apply_lora
from ..patch.strength import FULL, Strength

ATTENTION = "attention"
CONV = "conv"
METHODS = [AUTO, ATTENTION, CONV]

NODE = "LayerDiffuse Transparent"


def make_transparent(model: ModelPatcher, *, method: str = AUTO, strength: Strength = FULL, file: str = AUTO) -> ModelPatcher:
    """A clone of `model` that generates pictures with transparency.

    method: "attention", "conv" (SDXL) or "auto" (attention). file: name of a file in the layer_model folders, or "auto".
    Raises DiaphaneError for models without transparent weights and for files that do not fit.
    """
    family = require_family(model, NODE, {Family.SD15: None, Family.SDXL: None, Family.FLUX: None})
    if method == CONV and family is not Family.SDXL:
        raise DiaphaneError(f"{NODE} has the conv method for SDXL models only, got {family}. Set method to auto or attention.")
    role = Role.TRANSPARENT_CONV if method == CONV else Role.TRANSPARENT_ATTENTION
    apply = {Family.SD15: share_attention, Family.SDXL: apply_deltas, Family.FLUX: apply_lora}[family]
    with weights_for(model, family, role, file) as weights:
        if family is Family.SD15:
            check_arrangement(weights, frames=1, control=0)
        return set_layers(apply(model, weights, strength=strength), [FOREGROUND])
