"""A model that paints only inside of an area: outside of it, it sees and gives the clean latents of what is there already.

As SmartBrush is trained: the network's input is M x + (1 - M) z, without noise outside of the area. The network's input has the scale of
a clean latent at every step (the noise schedule is variance preserving), so z needs no scale of its own. The guided prediction is z
outside of the area, too, so that the sampling ends there.

Shapes: F frames of a set, which are rows i % F of a batch; C channels, h x w cells of a latent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.conds
import comfy.utils
import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP
from torch import Tensor

from ...pixels.fit import fit_to
from ..layers import LATENT_SCALE
from .conditions import given_to_all
from .strength import Activity


class Confined:
    """The area, and what each frame is outside of it."""

    def __init__(self, area: Tensor, fit: str, outside: Callable[[int, int], Tensor], activity: Activity, key: str):
        """area [1, 1, H, W] in [0, 1], 1 = paint here; fit: how it is brought to the size of the generation.

        outside: height and width of a picture -> clean latents [F, C, h, w], scaled as the model sees latents.
        """
        self.area = area
        self.fit = fit
        self.outside = outside
        self.activity = activity
        self.key = f"{key}.confined"
        self._known: tuple[tuple[int, ...], Tensor] | None = None  # the latest size, and what it gave

    def attach(self, model: ModelPatcher) -> None:
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, self.key, self._before_sampling)
        model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, self.key, self._keep_outside)
        model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, self.key, self._give_to_conds)
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, self.key, self._take_from_conds)
        model.add_callback_with_key(CallbacksMP.ON_CLEANUP, self.key, self._forget)

    def at(self, size: tuple[int, ...]) -> Tensor:
        """The area's cells and the latents outside of it for latents of this size: [F, 1 + C, h, w], 1 in the first channel = paint."""
        if self._known is None or self._known[0] != size:
            height, width = (side * LATENT_SCALE for side in size)
            inside = (F.max_pool2d(fit_to(self.area, height, width, self.fit), LATENT_SCALE) > 0).float()
            outside = self.outside(height, width).float()
            self._known = size, torch.cat([inside.to(outside.device).expand(len(outside), -1, -1, -1), outside], dim=1)
        return self._known[1]

    def _forget(self, _: ModelPatcher) -> None:
        self._known = None

    def _before_sampling(self, executor: Callable[..., Any], noise: Tensor, *args: Any, **kwargs: Any) -> Any:
        # The VAE works before ComfyUI loads the model, not beside it.
        if noise.ndim == 4:
            self.at(tuple(noise.shape[2:]))
        return executor(noise, *args, **kwargs)

    def _keep_outside(self, executor: Callable[..., Tensor], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        predicted = executor(x, *args, **kwargs)
        return _outside_of(self.at(tuple(x.shape[2:])), predicted) if self.activity.is_active() else predicted

    def _give_to_conds(self, executor: Callable[..., Any], model: Any, conds: list[Any], x: Tensor, *args: Any) -> Any:
        confined = comfy.conds.CONDNoiseShape(self.at(tuple(x.shape[2:])))
        return executor(model, given_to_all(conds, self.key, confined), x, *args)

    def _take_from_conds(self, executor: Callable[..., Any], x: Tensor, *args: Any, **kwargs: Any) -> Any:
        given = kwargs.pop(self.key, None)
        if not self.activity.is_active():
            return executor(x, *args, **kwargs)
        return executor(_outside_of(self.at(tuple(x.shape[2:])) if given is None else given, x), *args, **kwargs)


def _outside_of(confined: Tensor, x: Tensor) -> Tensor:
    """x [B, C, h, w] with the clean latents outside of the area."""
    confined = comfy.utils.repeat_to_batch_size(confined.to(dtype=x.dtype).to(x.device), len(x))
    return torch.where(confined[:, :1] > 0, x, confined[:, 1:])
