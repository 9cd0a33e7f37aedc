"""Patches of a model's weights: which weights the model has, and how patches of them are applied."""

from __future__ import annotations

from collections.abc import Collection

import comfy.utils
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import LoRAAdapter
from torch import Tensor

from ...errors import WeightsError
from ...weights.keys import excerpt
from .strength import Activity
from .unmerged import Patches, add_unmerged


def low_rank_patch(up: Tensor, down: Tensor) -> LoRAAdapter:
    """The patch that adds up @ down to a weight: up [out, rank], down [rank, in]."""
    return LoRAAdapter(set(), (up, down, None, None, None, None))


def weight_shapes(model: ModelPatcher, keys: Collection[str], *, other_engine: str, other_model: str) -> dict[str, tuple[int, ...]]:
    """{key: shape} of the weights that a file changes. (In a state dict, quantised weights have the shapes that they are packed into.)

    Raises WeightsError if the model lacks one of them. other_engine, other_model: the way out where another engine than ComfyUI runs the
    model, under names of its own, and where the model is not the one that the file was made for.
    """
    present = model.model.state_dict().keys()
    missing = sorted(key for key in keys if key not in present)
    network = type(model.model.diffusion_model)
    if missing and not network.__module__.startswith("comfy."):
        raise WeightsError(
            f"The model runs in an engine of its own ({network.__name__}), whose weights ComfyUI cannot patch with this file: "
            f"{other_engine}."
        )
    if missing:
        raise WeightsError(
            f"{len(missing)} of the {len(keys)} weights that this file changes are not in the model, e.g. {excerpt(missing)}. {other_model}"
        )
    return {key: tuple(comfy.utils.get_attr(model.model, key).shape) for key in keys}


def add_patches(model: ModelPatcher, patches: Patches, activity: Activity, key: str) -> None:
    """Apply `patches` to `model` (a clone that the caller owns): merged where they are active at every step, which costs nothing then."""
    if activity.strength.is_whole:
        add_merged(model, patches, activity.weight)
    else:
        add_unmerged(model, patches, activity, key)


def add_merged(model: ModelPatcher, patches: Patches, weight: float) -> None:
    """Merge `patches` into `model` (a clone that the caller owns). Raises WeightsError for a key that the model does not have."""
    missing = set(patches) - set(model.add_patches(patches, weight))
    if missing:
        raise WeightsError(
            f"{len(missing)} of {len(patches)} patches found no place in this model, e.g. {excerpt(sorted(map(str, missing)))}."
        )
