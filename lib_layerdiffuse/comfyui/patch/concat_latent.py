"""Latents that the model sees beside the noise, without a wider first convolution (docs/facts.md section 2).

Convolution is linear in its input channels: the widened part of the first convolution, applied to the extra latents alone and added
after input block 0, gives the same sum. The model's own weight keeps its shape, so area conditioning, weight hooks and LoRAs on the
first convolution work as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.conds
import comfy.patcher_extension
import comfy.utils
import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...pixels.fit import CROP, fit_to
from .strength import SigmaWindow


@dataclass(frozen=True)
class Extra:
    """Latents of pictures that a conditional model sees beside the noise, scaled as the model sees latents.

    latent [B or 1, K, h, w]; fit: how it is brought to the size of the noise; fill [K]: what "fit" puts around it.
    """

    latent: Tensor
    fit: str = CROP
    fill: Tensor | float = 0.0

    def at(self, height: int, width: int) -> Tensor:
        return fit_to(self.latent, height, width, self.fit, self.fill)


class ExtraChannels:
    """Adds `conv2d(extra, kernel) * weight` after input block 0 of a model."""

    def __init__(self, extra: Extra, kernel: Tensor, weight: float, window: SigmaWindow, key: str):
        """kernel [out, K, 3, 3] for K extra channels."""
        self.extra = extra
        self.kernel = kernel
        self.weight = weight
        self.window = window
        self.key = key

    def attach(self, model: ModelPatcher) -> None:
        model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, self.key, self._give_to_conds)
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, self.key, self._take_from_conds)
        model.set_model_input_block_patch(self)

    def _give_to_conds(self, executor: Callable[..., Any], model: Any, conds: list[Any], x: Tensor, *args: Any) -> Any:
        # As part of each condition, the host crops it to the condition's area and batches it with the others.
        # All conditions get it, the negative one too: otherwise they could not run in one batch.
        extra = comfy.conds.CONDNoiseShape(self._fitted(x))
        given = [
            None if entries is None else [{**c, "model_conds": {**c["model_conds"], self.key: extra}} for c in entries] for entries in conds
        ]
        return executor(model, given, x, *args)

    def _take_from_conds(
        self, executor: Callable[..., Any], x: Tensor, timesteps: Any, context: Any, y: Any, control: Any, options: dict, **kwargs: Any
    ) -> Any:
        given = kwargs.pop(self.key, None)
        return executor(x, timesteps, context, y, control, {**options, self.key: given}, **kwargs)

    def __call__(self, h: Tensor, options: dict[str, Any]) -> Tensor:
        if options["block"] != ("input", 0) or not self.window.is_open():
            return h
        extra = options.get(self.key)
        if extra is None:  # a caller that does not sample by conditions
            extra = comfy.utils.repeat_to_batch_size(self._fitted(h), h.shape[0])
        return torch.add(h, F.conv2d(extra.to(h), self.kernel.to(h), padding=1), alpha=self.weight)

    def _fitted(self, like: Tensor) -> Tensor:
        return self.extra.at(*like.shape[2:]).to(like)
