"""A transparent layer inside of an area, as exactly as one likes (after SmartBrush, Xie et al. 2023; no weights are needed for it).

Shapes: B rows of the batch; N of them are foregrounds; A areas, 1 or N; h x w cells of a latent, H, W = 8 h, 8 w pixels.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP
from comfy.sd import VAE
from torch import Tensor

from ...errors import DiaphaneError
from ...pixels.boxes import box_around
from ...pixels.fit import CROP, fit_to
from ...pixels.precision import VAGUE, certain_part
from ...pixels.straight import mask_planes
from ...weights.catalogue import Family
from ..alpha.alpha_vae import AlphaVAE
from ..alpha.transparent_vae import opaque_vae
from ..layers import LATENT_SCALE
from ..models.families import require_family, require_vae_of
from ..models.weight_files import AUTO
from ..patch.corrections import Corrections, bring_back, foreground_rows_of
from ..patch.generated import ObjectMask

NODE = "LayerDiffuse Shape"
FREE = 0.75  # fraction of the sampling from which on edges are the model's own; held to whole cells to the end, they stay soft
LEAST_SIDE = 2 * LATENT_SCALE  # pixels of an area, either way

logger = logging.getLogger("diaphane")


def make_shape(
    model: ModelPatcher,
    vae: VAE,
    area: Tensor,
    *,
    precision: float = 1.0,
    fit: str = CROP,
    strength: float = 2.0,
    corrections: int = 4,
    end: float = 0.4,
    decoder_file: str = AUTO,
    encoder_file: str = AUTO,
) -> ModelPatcher:
    """A clone of `model` whose foregrounds lie in an area.

    area: mask of any size, one or one a set, 1 = here. precision: 1 = the layer fills the area, 0 = it is anywhere in it; below 0.25 no
    pixel of the area has to be covered. fit: how the area is brought to the size of the generation. strength: of each correction.
    corrections: how many are made until `end`, a fraction of the sampling.
    Raises DiaphaneError for an empty area, and for models and VAEs that LayerDiffuse does not know.
    """
    family = require_family(model, NODE, {Family.SD15: None, Family.SDXL: None, Family.FLUX: None})
    vae = opaque_vae(vae)
    require_vae_of(model, vae, NODE)
    planes = mask_planes(area).clamp(0.0, 1.0)
    if not planes.flatten(1).any(dim=1).all():
        raise DiaphaneError(f"{NODE} got an area in which nothing is marked. Paint it: 1 (white) is where the layer is to be.")
    patched = model.clone()
    everywhere = precision < VAGUE and bool((planes == 1.0).all())
    if strength == 0.0 or end == 0.0 or everywhere:
        return patched
    alpha = AlphaVAE(vae, family, None, decoder_file, encoder_file)
    _ = alpha.decoder, alpha.encoder  # found, fetched and checked here: what is wrong with a file is this node's message
    shape = Shape(alpha, planes, precision, fit)
    marks = [end * (i + 0.5) / corrections for i in range(corrections)]
    key = f"diaphane.{uuid.uuid4().hex}"
    # The first wrapper is the outermost one: what a correction adds outside of the area goes, too.
    shape.attach(patched, f"{key}.area")
    Corrections(shape.vae, shape.write, marks, strength).attach(patched, key)
    return patched


@dataclass(frozen=True)
class Place:
    """An area at the size of a generation, on the sampler's device."""

    outer: Tensor  # [A, H, W, 1]: alpha is at most this
    certain: Tensor  # [A, H, W, 1]: and at least this
    cells: Tensor  # [A, 1, h, w]: 1 in the cells of the latent that the area touches
    nothing: Tensor  # [1, C, h, w]: a transparent picture, scaled as the model sees latents


class Shape:
    """An area for the foregrounds of one model."""

    def __init__(self, vae: AlphaVAE, area: Tensor, precision: float, fit: str):
        """area [A, 1, H', W'] in [0, 1]."""
        self.vae = vae
        self.area = area
        self.precision = precision
        self.fit = fit
        self.mask = ObjectMask()
        self._place: Place | None = None
        self._said = False

    def attach(self, model: ModelPatcher, key: str) -> None:
        """model: a clone that the caller owns."""
        model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, key, self._confine)
        model.add_callback_with_key(CallbacksMP.ON_CLEANUP, key, self._forget)
        self.mask.attach(model)

    def write(self, rgba: Tensor) -> Tensor:
        """Alpha inside of the area as the precision demands it, and none outside: [N, H, W, 4] -> the same shape."""
        assert self._place is not None  # _confine, which is around every correction, made it
        outer, certain = (plane.to(rgba) for plane in (self._place.outer, self._place.certain))
        alpha = torch.maximum(rgba[..., 3:] * outer, certain)
        self.mask.alpha = alpha.movedim(-1, 1)
        return torch.cat((rgba[..., :3], alpha), dim=-1)

    def _confine(self, executor: Any, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Wrapper of the sampler's view of the model: outside of the area, the layer that it expects is transparent."""
        guider = executor.class_obj
        rows = foreground_rows_of(guider.model_patcher, x)
        if not rows:
            self._say_that_there_is_nothing_to_do()
            return executor(x, timestep, *args, **kwargs)
        if self._place is None:
            self._place = self._at(guider, x, len(rows))
        expected = executor(x, timestep, *args, **kwargs)
        if float(timestep.max()) <= float(guider.inner_model.model_sampling.percent_to_sigma(FREE)):
            return expected
        expected = expected.clone()
        nothing, cells = (part.to(expected) for part in (self._place.nothing, self._place.cells))
        expected[rows] = torch.where(cells > 0.0, expected[rows], nothing)
        return expected

    def _at(self, guider: Any, x: Tensor, count: int) -> Place:
        """The area at the size of the latents x [B, C, h, w], of which `count` are foregrounds."""
        height, width = (LATENT_SCALE * side for side in x.shape[2:])
        area = fit_to(self.area, height, width, self.fit).to(x.device)  # resized where it is: not every device can
        if len(area) not in (1, count):
            raise DiaphaneError(
                f"{NODE} got {len(area)} areas for {count} transparent layers. Connect one area, or as many as the batch has such layers."
            )
        _check_size(area)
        nothing = guider.inner_model.process_latent_in(self.vae.empty(height, width, 1)["samples"]).to(x)
        bring_back(guider, x)
        outer, certain = (plane.movedim(1, -1) for plane in (area, certain_part(area, self.precision)))
        return Place(outer, certain, F.max_pool2d(area, LATENT_SCALE), nothing)

    def _forget(self, _: ModelPatcher) -> None:
        self._place = self.mask.alpha = None
        self._said = False

    def _say_that_there_is_nothing_to_do(self) -> None:
        if not self._said:
            logger.warning("%s does nothing: this model generates no transparent layer. Patch it with another node.", NODE)
        self._said = True


def _check_size(area: Tensor) -> None:
    """Raises DiaphaneError if an area [A, 1, H, W] is too narrow for a latent to hold a layer in it."""
    for mask in area[:, 0] > 0.0:
        box = box_around(mask) if mask.any() else None
        if box is None or min(box.width, box.height) < LEAST_SIDE:
            size = "lies outside of the picture" if box is None else f"is {box.width:g}x{box.height:g} px"
            raise DiaphaneError(
                f"{NODE}: at the size of the generation ({area.shape[3]}x{area.shape[2]}) the area {size}, a layer needs "
                f"{LEAST_SIDE}x{LEAST_SIDE} px. Paint a larger area, or set fit to fit or stretch."
            )
