"""LoRA files in the formats that ComfyUI reads, with every key accounted for and a range of steps."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import replace

import comfy.lora
import comfy.lora_convert
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import LoRAAdapter
from torch import Tensor

from ...errors import WeightsError
from ...weights.keys import excerpt, looks_like
from .strength import FULL, Activity, Strength
from .unmerged import Patches
from .weight_patches import add_patches, weight_shapes

OTHER_ENGINE = (
    "copy it to models/loras and load it with that engine's own LoRA loader (Nunchaku FLUX LoRA Loader, for one), "
    "or load the model with Load Diffusion Model"
)
OTHER_MODEL = "Load the model that the file was made for (distilled ones have fewer blocks)."


def apply_lora(model: ModelPatcher, state_dict: Mapping[str, Tensor], *, strength: Strength = FULL, **fields: float) -> ModelPatcher:
    """A clone of `model` with a LoRA. fields: weight, start and end, in place of those of `strength`.

    Raises WeightsError if the file is no LoRA, or has keys that find no place in the model.
    """
    strength = replace(strength, **fields)
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    lora = comfy.lora_convert.convert_lora(dict(state_dict))
    patches = comfy.lora.load_lora(lora, keys, log_missing=False)
    targets = {key if isinstance(key, str) else key[0] for key in patches}
    shapes = weight_shapes(model, targets, other_engine=OTHER_ENGINE, other_model=OTHER_MODEL)
    used = {key for patch in patches.values() for key in getattr(patch, "loaded_keys", ())}
    unused = sorted(set(lora) - used)
    if unused:
        raise WeightsError(
            f"{len(unused)} of the {len(lora)} keys of this LoRA find no place in the model, e.g. {excerpt(unused)}. "
            f"{looks_like(state_dict)} Choose a file that was made for this model."
        )
    _check_shapes(patches, shapes)
    patched = model.clone()
    if not strength.is_empty:
        key = f"diaphane.{uuid.uuid4().hex}"
        add_patches(patched, patches, Activity(strength, patched, key), key)
    return patched


def _check_shapes(patches: Patches, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Every low-rank patch has to fit its weight: ComfyUI would only log what does not and go on without it."""
    for key, patch in patches.items():
        if not isinstance(patch, LoRAAdapter) or patch.weights[3] is not None or patch.weights[5] is not None:
            continue
        up, down = (tuple(tensor.shape) for tensor in patch.weights[:2])
        weight_key, part = (key, None) if isinstance(key, str) else key[:2]
        needed = list(shapes[weight_key])
        if part is not None:
            needed[part[0]] = part[2]
        if up[1] != down[0] or (up[0], math.prod(down[1:])) != (needed[0], math.prod(needed[1:])):
            raise WeightsError(
                f"The LoRA of {weight_key} has the shapes {list(up)} and {list(down)}, the weight {needed}: the file is for another model."
            )
