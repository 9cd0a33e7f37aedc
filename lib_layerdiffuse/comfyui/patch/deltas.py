"""The released SDXL delta files as patches of a ComfyUI model (docs/facts.md section 2)."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import replace

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...errors import WeightsError
from ...weights.keys import Delta, parse_deltas
from .concat_latent import ConcatLatent, ConcatLatentPatch
from .strength import FULL, Activity, Strength
from .unmerged import Patches
from .weight_patches import add_patches, low_rank_patch, weight_shapes

FIRST_CONV = "diffusion_model.input_blocks.0.0.weight"
OTHER_ENGINE = "load an SDXL checkpoint with ComfyUI's own loader"
OTHER_MODEL = "The file was made for SDXL: load an SDXL checkpoint (distilled ones such as SSD-1B have other blocks)."


def apply_deltas(
    model: ModelPatcher,
    state_dict: Mapping[str, Tensor],
    *,
    strength: Strength = FULL,
    extra: Tensor | ConcatLatent | None = None,
    **fields: float,
) -> ModelPatcher:
    """A clone of `model` with the deltas of a released file.

    strength: of every delta; over the whole sampling it costs nothing. fields: weight, start and end, in place of those of `strength`.
    extra: the latents that a conditional file expects beside the noise, [B or 1, 4k, h, w], scaled as the model sees latents.
    Raises WeightsError if the file is no delta file or a key of it does not fit the model.
    """
    strength = replace(strength, **fields)
    deltas = parse_deltas(state_dict)
    shapes = weight_shapes(model, deltas, other_engine=OTHER_ENGINE, other_model=OTHER_MODEL)
    latent_channels = model.model.latent_format.latent_channels

    wide = deltas.get(FIRST_CONV)
    kernel = None
    if wide is not None and wide.diff is not None and wide.diff.ndim == 4 and wide.diff.shape[1] > latent_channels:
        kernel = wide.diff[:, latent_channels:]
        deltas[FIRST_CONV] = Delta(FIRST_CONV, up=None, down=None, diff=wide.diff[:, :latent_channels])
    concat = ConcatLatent(extra) if isinstance(extra, Tensor) else extra
    _check_channels(kernel, concat)
    _check_shapes(deltas, shapes, latent_channels)

    patched = model.clone()
    if strength.is_empty:
        return patched
    key = f"diaphane.{uuid.uuid4().hex}"
    activity = Activity(strength, patched, key)
    add_patches(patched, _patches(deltas, shapes, latent_channels), activity, key)
    if kernel is not None and concat is not None:
        ConcatLatentPatch(concat, kernel, activity, key).attach(patched)
    return patched


def _patches(deltas: Mapping[str, Delta], shapes: Mapping[str, tuple[int, ...]], latent_channels: int) -> Patches:
    patches: Patches = {}
    for key, delta in deltas.items():
        if delta.up is not None and delta.down is not None:
            patches[key] = low_rank_patch(delta.up, delta.down)
        if delta.diff is not None:
            # An inpainting model has a first convolution that is wider than ours: the delta belongs to the channels of the noise.
            narrow = key == FIRST_CONV and shapes[key][1] > latent_channels
            patches[(key, (1, 0, latent_channels)) if narrow else key] = ("diff", (delta.diff,))
    return patches


def _check_channels(kernel: Tensor | None, concat: ConcatLatent | None) -> None:
    expected = 0 if kernel is None else kernel.shape[1]
    got = 0 if concat is None else concat.latent.shape[1]
    if got != expected:
        raise WeightsError(
            f"This delta file works with {expected} extra latent channels, got {got}. "
            "Files without any belong to LayerDiffuse Transparent, with 4 to LayerDiffuse Blend, with 8 to LayerDiffuse Extract."
        )


def _check_shapes(deltas: Mapping[str, Delta], shapes: Mapping[str, tuple[int, ...]], latent_channels: int) -> None:
    """Every delta has to fit its weight: ComfyUI would only log what does not and go on without it."""
    for key, delta in deltas.items():
        shape = shapes[key]
        if key == FIRST_CONV:
            shape = (shape[0], min(shape[1], latent_channels), *shape[2:])
        got = _shape(delta)
        if got != shape and got != (shape[0], math.prod(shape[1:])):
            raise WeightsError(
                f"The delta of {key} has shape {list(got)}, the model's weight {list(shape)}: the file belongs to another model."
            )


def _shape(delta: Delta) -> tuple[int, ...]:
    """Shape of the change; a low-rank one is a matrix, whatever it changes."""
    if delta.up is not None and delta.down is not None:
        return (delta.up.shape[0], delta.down.shape[1])
    assert delta.diff is not None  # parse_deltas leaves no empty delta
    return tuple(delta.diff.shape)
