"""Corrections: changes of the layer that a sampler expects, at a few points of the sampling.

The transparency networks make the predicted layer readable and writable: it is decoded to colour and alpha, changed, encoded again, and the
difference between both encodings is added to the prediction. What the autoencoder loses cancels out, and where nothing is changed nothing
changes.

Shapes: B rows of the batch; N of them are foregrounds; C channels of a latent of h x w cells; H, W = 8 h, 8 w pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management as memory
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP
from torch import Tensor

from ..alpha.alpha_vae import AlphaVAE
from ..alpha.codec import decode_rgba, encode_rgba
from ..alpha.latents import check_latent_for
from ..layers import FOREGROUND
from .generated import rows_of

Change = Callable[[Tensor], Tensor]  # [N, H, W, 4] in [0, 1], straight alpha -> the same shape


class Corrections:
    """Changes the foregrounds that the sampler expects, once at each of some marks."""

    def __init__(self, vae: AlphaVAE, change: Change, marks: Sequence[float], strength: float):
        """marks: fractions of the sampling, ascending; of several that are passed in one step, one correction is made. strength: factor
        of the difference; 1 writes what `change` gives, more makes up for what later steps take back.
        """
        self.vae = vae
        self.change = change
        self.marks = marks
        self.strength = strength
        self._passed = 0  # marks

    def attach(self, model: ModelPatcher, key: str) -> None:
        """model: a clone that the caller owns."""
        model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, key, self._predict)
        model.add_callback_with_key(CallbacksMP.ON_PRE_RUN, key, self._start)

    def _start(self, _: ModelPatcher) -> None:
        self._passed = 0

    def _predict(self, executor: Any, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Wrapper of the sampler's view of the model, which gives the clean latent [B, C, h, w] that is expected after guidance."""
        expected = executor(x, timestep, *args, **kwargs)
        guider = executor.class_obj
        rows = foreground_rows_of(guider.model_patcher, expected)
        if not rows or not self._is_due(guider.inner_model, timestep):
            return expected
        memory.throw_exception_if_processing_interrupted()
        corrected = expected.clone()
        corrected[rows] += self.strength * self._difference(guider.inner_model, expected[rows])
        bring_back(guider, x)
        return corrected

    def _is_due(self, model: Any, timestep: Tensor) -> bool:
        sigma = float(timestep.max())
        passed = sum(sigma <= float(model.model_sampling.percent_to_sigma(mark)) for mark in self.marks)
        due, self._passed = passed > self._passed, max(passed, self._passed)
        return due

    def _difference(self, model: Any, expected: Tensor) -> Tensor:
        """What the change of a prediction [N, C, h, w] adds to it, on its device, of its dtype."""
        latent = check_latent_for(self.vae.vae, model.process_latent_out(expected.float()))
        rgba = decode_rgba(self.vae.decoder, self.vae.vae.decode(latent), latent, passes=1, report=False)
        both = torch.cat((rgba, self.change(rgba)))
        before, after = model.process_latent_in(encode_rgba(self.vae.vae, self.vae.encoder, both)).to(expected).chunk(2)
        return after - before


def foreground_rows_of(model: ModelPatcher, expected: Tensor) -> list[int]:
    """The rows of a prediction [B, ...] that are foregrounds: all of them if no patch says which layers the model generates."""
    rows = rows_of(model, FOREGROUND, len(expected))
    return list(range(len(expected))) if rows is None else rows


def bring_back(guider: Any, x: Tensor) -> None:
    """Load again what the sampler works with: on a small card, networks that ran in between have pushed it out of memory."""
    model = guider.inner_model
    needed = model.memory_required([2 * len(x), *x.shape[1:]])  # two rows each, for guidance, as ComfyUI reckons
    memory.load_models_gpu([guider.model_patcher, *guider.loaded_models], memory_required=needed)
