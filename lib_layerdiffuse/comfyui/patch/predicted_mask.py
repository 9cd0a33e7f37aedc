"""Where the object is, as a trained brush predicts it beside the layers at every step, shown to the model's other patches.

The mask head reads what the model's last convolution reads, of the foreground rows of the positive prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP
from torch import Tensor, nn

from ...errors import WeightsError
from ...nets.attention_sharing import AttentionSharing
from .additional import attached
from .forward_hooks import ForwardHook, ForwardHooks
from .generated import ObjectMask
from .strength import Activity
from .weight_patches import weight_shapes

LAST = "diffusion_model.out.2"
POSITIVE = 0  # in ComfyUI's list of what the parts of a batch are for


class PredictedMask:
    """The prediction of one trained brush for one model."""

    def __init__(self, frames: int, activity: Activity, network_key: str):
        """network_key: of the brush's network among the model's additional ones. The first of its frames is the foreground."""
        self.frames = frames
        self.activity = activity
        self.network_key = network_key
        self.key = f"{network_key}.mask"
        self.mask = ObjectMask()
        self._parts: list[int] | None = None  # of the batch that runs: which prompts they are for; None: not the whole picture
        self._size: tuple[int, ...] | None = None  # of the latent that is sampled

    def attach(self, model: ModelPatcher) -> None:
        """`model`: a clone that the caller owns."""
        self.mask.attach(model)
        model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, self.key, self._on_step)
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, self.key, self._on_run)
        model.add_callback_with_key(CallbacksMP.ON_CLEANUP, self.key, self._forget)
        model.set_injections(self.key, [ForwardHooks(self._hooks)])

    def _hooks(self, patcher: ModelPatcher) -> dict[str, ForwardHook]:
        return {LAST: self._hook_for(attached(patcher, self.network_key))}

    def _hook_for(self, net: AttentionSharing) -> ForwardHook:
        def look(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            features = args[0]
            if not self._parts or not self.activity.is_active():
                return
            parts = features.chunk(len(self._parts))
            for part, prompt in zip(parts, self._parts, strict=True):
                if prompt == POSITIVE:
                    found = net.object_mask(part[:: self.frames]).float()
                    known = self.mask.alpha  # of another positive prompt, at the same step
                    self.mask.alpha = found if known is None else torch.maximum(found, known.to(found))

        hook: Any = torch.compiler.disable(look)
        return hook

    def _on_step(self, executor: Callable[..., Tensor], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self.mask.alpha, self._size = None, tuple(x.shape[2:])
        return executor(x, *args, **kwargs)

    def _on_run(
        self, executor: Callable[..., Any], x: Tensor, timesteps: Any, context: Any, y: Any, control: Any, options: dict, **kwargs: Any
    ) -> Any:
        # A prompt for a part of the picture says nothing of the rest.
        is_whole = self._size in (None, tuple(x.shape[2:]))
        self._parts = list(options["cond_or_uncond"]) if is_whole else None
        try:
            return executor(x, timesteps, context, y, control, options, **kwargs)
        finally:
            self._parts = None

    def _forget(self, *_: object) -> None:
        self.mask.alpha = self._size = self._parts = None


def check_mask_head(net: AttentionSharing, model: ModelPatcher) -> None:
    """Raise WeightsError if a sharing file has a mask head that does not fit the model."""
    if net.mask_head is None:
        return
    weight = f"{LAST}.weight"
    needed = weight_shapes(model, [weight], other_engine="load an SD1.5 checkpoint with ComfyUI's own loader", other_model="")[weight][1]
    if net.mask_head.in_channels != needed:
        raise WeightsError(
            f"This attention sharing file does not fit the model: {LAST} has {needed} channels, its mask head reads "
            f"{net.mask_head.in_channels}. Use an SD1.5 checkpoint."
        )
