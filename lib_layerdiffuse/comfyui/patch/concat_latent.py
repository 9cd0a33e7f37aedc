"""Latents that the model sees beside the noise, without a wider first convolution (docs/facts.md section 2).

Convolution is linear in its input channels: the widened part of the first convolution, applied to these latents alone and added after
input block 0, gives the same sum. The model's own weight keeps its shape, so area conditioning, weight hooks and LoRAs on the first
convolution work as they do without this patch.

Shapes: B rows of the batch, K channels of the latents, h x w cells of a latent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.conds
import comfy.utils
import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...pixels.fit import CROP, fit_to
from .conditions import given_to_all
from .strength import Activity


@dataclass(frozen=True)
class ConcatLatent:
    """Latents of pictures that a conditional model sees beside the noise, scaled as the model sees latents.

    latent [B or 1, K, h, w], of any dtype and device; fit: how it is brought to the size of the noise; fill [K]: what "fit" puts around it.
    """

    latent: Tensor
    fit: str = CROP
    fill: Tensor | float = 0.0

    def like(self, x: Tensor) -> Tensor:
        """The latent at the size of x [B, C, h, w], of its dtype and on its device."""
        height, width = x.shape[2:]
        return fit_to(self.latent, height, width, self.fit, self.fill).to(x)


class ConcatLatentPatch:
    """Adds `conv2d(concat, kernel) * weight` after input block 0 of a model."""

    def __init__(self, concat: ConcatLatent, kernel: Tensor, activity: Activity, key: str):
        """kernel [out, K, 3, 3]."""
        self.concat = concat
        self.kernel = kernel
        self.activity = activity
        self.key = key

    def attach(self, model: ModelPatcher) -> None:
        model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, self.key, self._give_to_conds)
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, self.key, self._take_from_conds)
        model.set_model_input_block_patch(self)

    def _give_to_conds(self, executor: Callable[..., Any], model: Any, conds: list[Any], x: Tensor, *args: Any) -> Any:
        concat = comfy.conds.CONDNoiseShape(self.concat.like(x))
        return executor(model, given_to_all(conds, self.key, concat), x, *args)

    def _take_from_conds(
        self, executor: Callable[..., Any], x: Tensor, timesteps: Any, context: Any, y: Any, control: Any, options: dict, **kwargs: Any
    ) -> Any:
        given = kwargs.pop(self.key, None)
        return executor(x, timesteps, context, y, control, {**options, self.key: given}, **kwargs)

    def __call__(self, h: Tensor, options: dict[str, Any]) -> Tensor:
        if options["block"] != ("input", 0) or not self.activity.is_active():
            return h
        concat = options.get(self.key)
        if concat is None:  # a caller that does not sample by conditions
            concat = comfy.utils.repeat_to_batch_size(self.concat.like(h), h.shape[0])
        return torch.add(h, F.conv2d(concat.to(h), self.kernel.to(h), padding=1), alpha=self.activity.weight)
