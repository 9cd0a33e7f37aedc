"""How strong a patch is, and from which to which point of the sampling it is active."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP
from torch import Tensor

from ...errors import DiaphaneError


@dataclass(frozen=True)
class Strength:
    """The weight of a patch, and the part of the sampling, in fractions of it, in which the patch is active.

    weight: factor of all that is added; 1 is what the patch was trained for. A step belongs to the range from `start` on and up to,
    not including, `end`: ranges that meet share no step. Raises DiaphaneError unless 0 <= start <= end <= 1.
    """

    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.start <= self.end <= 1.0:
            raise DiaphaneError(
                f"start and end have to be between 0 and 1, start not after end; got start {self.start} and end {self.end}."
            )

    @property
    def is_whole(self) -> bool:
        """Whether the patch is active at every step, so that weights may be merged."""
        return self.start == 0.0 and self.end == 1.0

    @property
    def is_empty(self) -> bool:
        """Whether the patch changes nothing at any step."""
        return self.weight == 0.0 or self.start == self.end

    def is_active(self, sigma: float, percent_to_sigma: Callable[[float], float]) -> bool:
        """Whether a step at `sigma` belongs to the range. percent_to_sigma: of the model's noise schedule."""
        return sigma <= percent_to_sigma(self.start) and (self.end == 1.0 or sigma > percent_to_sigma(self.end))


FULL = Strength()


class Activity:
    """Whether the patches of one model are active at the present step of its sampling."""

    def __init__(self, strength: Strength, model: ModelPatcher, key: str):
        """model: a clone that the caller owns. Before each step of its sampling this is brought up to date."""
        self.strength = strength
        self.weight = strength.weight
        self._active = True
        if not strength.is_whole:
            model.add_callback_with_key(CallbacksMP.ON_PREPARE_STATE, key, self._on_step)

    def is_active(self) -> bool:
        return self.strength.is_whole or self._present()

    # A compiled model would take the flag for a constant: ComfyUI drops the guards on everything that patches bring.
    _present: Any = torch.compiler.disable(lambda self: self._active)

    def _on_step(self, patcher: ModelPatcher, timestep: Tensor, *_: object) -> None:
        # Asked at every step, because a later node may bring its own noise schedule.
        model_sampling: Any = patcher.get_model_object("model_sampling")
        self._active = self.strength.is_active(float(timestep.max()), model_sampling.percent_to_sigma)
