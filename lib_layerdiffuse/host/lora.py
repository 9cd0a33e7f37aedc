"""LoRA files in the formats that ComfyUI reads, with every key accounted for and a range of steps."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import comfy.lora
import comfy.lora_convert
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..errors import WeightsError
from ..weights.grammar import excerpt, looks_like
from .deltas import add_merged
from .side_layers import add_side_layers
from .window import SigmaWindow


def apply_lora(
    model: ModelPatcher, state_dict: Mapping[str, Tensor], *, weight: float = 1.0, start: float = 0.0, end: float = 1.0
) -> ModelPatcher:
    """A clone of `model` with a LoRA, active from `start` to `end` of the sampling.

    Raises WeightsError if the file is no LoRA, or has keys that find no place in the model.
    """
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    lora = comfy.lora_convert.convert_lora(dict(state_dict))
    patches = comfy.lora.load_lora(lora, keys, log_missing=False)
    used = {key for patch in patches.values() for key in getattr(patch, "loaded_keys", ())}
    unused = sorted(set(lora) - used)
    if unused:
        raise WeightsError(
            f"{len(unused)} of the {len(lora)} keys of this LoRA find no place in the model, e.g. {excerpt(unused)}. "
            f"{looks_like(state_dict)} Choose a file that was made for this model."
        )
    patched = model.clone()
    window = SigmaWindow(start, end)
    if weight == 0.0 or window.is_empty:
        return patched
    if window.is_whole:
        add_merged(patched, patches, weight)
    else:
        add_side_layers(patched, patches, weight, window, f"diaphane.{uuid.uuid4().hex}")
    return patched
