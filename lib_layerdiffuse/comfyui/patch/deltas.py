"""The released SDXL delta files as patches of a ComfyUI model (docs/facts.md section 2)."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Mapping

import comfy.utils
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import LoRAAdapter
from torch import Tensor

from ...errors import WeightsError
from ...weights.keys import Delta, excerpt, parse_deltas
from .concat_latent import Extra, ExtraChannels
from .strength import SigmaWindow
from .unmerged import Patches, add_side_layers

FIRST_CONV = "diffusion_model.input_blocks.0.0.weight"


def apply_deltas(
    model: ModelPatcher,
    state_dict: Mapping[str, Tensor],
    *,
    weight: float = 1.0,
    start: float = 0.0,
    end: float = 1.0,
    extra: Tensor | Extra | None = None,
) -> ModelPatcher:
    """A clone of `model` with the deltas of a released file.

    weight: strength of every delta. start, end: the part of the sampling in which they are active; the whole of it costs nothing.
    extra: the latents that a conditional file expects beside the noise, [B or 1, 4k, h, w], scaled as the model sees latents.
    Raises WeightsError if the file is no delta file or a key of it does not fit the model.
    """
    deltas = parse_deltas(state_dict)
    patched = model.clone()
    window = SigmaWindow(start, end)
    shapes = weight_shapes(model, deltas)
    check_network(model, deltas.keys() - shapes.keys(), "load an SDXL checkpoint with ComfyUI's own loader")
    latent_channels = model.model.latent_format.latent_channels

    wide = deltas.get(FIRST_CONV)
    kernel = None
    if wide is not None and wide.diff is not None and wide.diff.ndim == 4 and wide.diff.shape[1] > latent_channels:
        kernel = wide.diff[:, latent_channels:]
        deltas[FIRST_CONV] = Delta(FIRST_CONV, up=None, down=None, diff=wide.diff[:, :latent_channels])
    if isinstance(extra, Tensor):
        extra = Extra(extra)
    _check_extra(kernel, extra)
    _check_shapes(deltas, shapes, latent_channels)

    if weight == 0.0 or window.is_empty:
        return patched
    key = f"diaphane.{uuid.uuid4().hex}"
    patches = _patches(deltas, shapes, latent_channels)
    if window.is_whole:
        add_merged(patched, patches, weight)
    else:
        add_side_layers(patched, patches, weight, window, key)
    if kernel is not None and extra is not None:
        ExtraChannels(extra, kernel, weight, window, key).attach(patched)
    return patched


def add_merged(model: ModelPatcher, patches: Patches, weight: float) -> None:
    """Merge `patches` into `model` (a clone that the caller owns). Raises WeightsError for a key that the model does not have."""
    missing = set(patches) - set(model.add_patches(patches, weight))
    if missing:
        raise WeightsError(
            f"{len(missing)} of {len(patches)} patches found no place in this model, e.g. {excerpt(sorted(map(str, missing)))}."
        )


def weight_shapes(model: ModelPatcher, keys: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """{key: shape} of the weights that the model has. (In its state dict, quantised weights have the shapes that they are packed into.)"""
    there = model.model.state_dict().keys()
    return {key: tuple(comfy.utils.get_attr(model.model, key).shape) for key in keys if key in there}


def check_network(model: ModelPatcher, missing: Iterable[str], way_out: str) -> None:
    """Raise WeightsError if weights are missing because another engine than ComfyUI runs the model, under names of its own."""
    network = type(model.model.diffusion_model)
    if any(missing) and not network.__module__.startswith("comfy."):
        raise WeightsError(
            f"The model runs in an engine of its own ({network.__name__}), whose weights ComfyUI cannot patch with this file: {way_out}."
        )


def low_rank_patch(up: Tensor, down: Tensor) -> LoRAAdapter:
    """The patch that adds up @ down to a weight: up [out, rank], down [rank, in]."""
    return LoRAAdapter(set(), (up, down, None, None, None, None))


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


def _check_extra(kernel: Tensor | None, extra: Extra | None) -> None:
    expected = 0 if kernel is None else kernel.shape[1]
    got = 0 if extra is None else extra.latent.shape[1]
    if got != expected:
        raise WeightsError(
            f"This delta file works with {expected} extra latent channels, got {got}. "
            "Files without any belong to LayerDiffuse Transparent, with 4 to LayerDiffuse Blend, with 8 to LayerDiffuse Extract."
        )


def _check_shapes(deltas: Mapping[str, Delta], shapes: Mapping[str, tuple[int, ...]], latent_channels: int) -> None:
    """Every delta has to fit its weight: the host would only log what does not and go on without it."""
    missing = [key for key in deltas if key not in shapes]
    if missing:
        raise WeightsError(
            f"{len(missing)} of the {len(deltas)} weights in this delta file are not in the model, e.g. {excerpt(missing)}. "
            "The file was made for SDXL: load an SDXL checkpoint (distilled ones such as SSD-1B have other blocks)."
        )
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
