"""torch forward hooks on a patched model's modules, put in and taken out by ComfyUI."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import comfy.utils
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import PatcherInjection
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

# (module, its positional arguments, its output) -> the new output, or None for no change
ForwardHook = Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor | None]


class ForwardHooks(PatcherInjection):
    """Hooks that are on a model's modules exactly while ComfyUI has the patched model loaded.

    Clones of a patcher share one model and this object, and ComfyUI may eject a clone that was never injected: handles are kept per
    model, not per patcher.
    """

    def __init__(self, hooks: Mapping[str, ForwardHook]):
        """`hooks`: path of a module in the model, as in the model's state dict -> hook."""
        self._hooks = dict(hooks)
        self._handles: weakref.WeakKeyDictionary[nn.Module, list[RemovableHandle]] = weakref.WeakKeyDictionary()
        super().__init__(inject=self._inject, eject=self._eject)

    def _inject(self, patcher: ModelPatcher) -> None:
        self._eject(patcher)
        self._handles[patcher.model] = [
            comfy.utils.get_attr(patcher.model, path).register_forward_hook(hook) for path, hook in self._hooks.items()
        ]

    def _eject(self, patcher: ModelPatcher) -> None:
        for handle in self._handles.pop(patcher.model, ()):
            handle.remove()
