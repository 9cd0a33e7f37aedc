"""From which to which point of the sampling a patch is active."""

from __future__ import annotations

from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP
from torch import Tensor

from ...errors import DiaphaneError


class SigmaWindow:
    """A part of the sampling, given in fractions of it, judged by sigma at every step.

    A step belongs to the window from `start` on and up to, not including, `end`: windows that meet share no step.
    """

    def __init__(self, start: float = 0.0, end: float = 1.0):
        if not 0.0 <= start <= end <= 1.0:
            raise DiaphaneError(f"start and end have to be between 0 and 1, start not after end; got start {start} and end {end}.")
        self.start = start
        self.end = end
        self._open = True

    @property
    def is_whole(self) -> bool:
        return self.start == 0.0 and self.end == 1.0

    @property
    def is_empty(self) -> bool:
        return self.start == self.end

    def is_open(self) -> bool:
        """Whether the patch is active at the present step."""
        return self.is_whole or _now(self)

    def attach(self, model: ModelPatcher, key: str) -> None:
        """Let the sampling of `model` open and close this window before each step."""
        model.add_callback_with_key(CallbacksMP.ON_PREPARE_STATE, key, self._on_step)

    def _on_step(self, patcher: ModelPatcher, timestep: Tensor, *_: object) -> None:
        # Asked at every step, because a later node may bring its own noise schedule.
        model_sampling: Any = patcher.get_model_object("model_sampling")
        to_sigma = model_sampling.percent_to_sigma
        sigma = float(timestep.max())
        self._open = sigma <= to_sigma(self.start) and (self.end == 1.0 or sigma > to_sigma(self.end))


def _read(window: SigmaWindow) -> bool:
    return window._open


# A compiled model would take the flag for a constant: the host drops the guards on everything that patches bring.
_now: Any = torch.compiler.disable(_read)
