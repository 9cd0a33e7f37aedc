"""torch forward hooks on a patched model's modules, which ComfyUI registers and removes."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import comfy.model_management as memory
import comfy.utils
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import PatcherInjection
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

# (module, its positional arguments, its output) -> the new output, or None for no change
ForwardHook = Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor | None]


class ForwardHooks(PatcherInjection):
    """Hooks that are on a model's modules exactly while ComfyUI has the patched model loaded.

    Clones of a patcher share one model and this object. A clone inherits the mark that it is injected, and ComfyUI ejects it when it is
    deleted, even while the patcher that it was cloned from is sampling: only the loaded patcher may change the hooks.
    """

    def __init__(self, hooks_for: Callable[[ModelPatcher], Mapping[str, ForwardHook]]):
        """hooks_for: patcher -> {path of a module in the model, as in its state dict: hook}; a hook must not hold the patcher."""
        self._hooks_for = hooks_for
        # What removes a model's hooks also runs when the patcher that registered them is deleted. It must not depend on this object:
        # when the cycle collector deletes both, the weak references in here (torch's handles are such, too) are cleared before `eject`.
        self._injected: weakref.WeakKeyDictionary[nn.Module, weakref.finalize[..., ModelPatcher]] = weakref.WeakKeyDictionary()
        super().__init__(inject=self._inject, eject=self._eject)

    def _inject(self, patcher: ModelPatcher) -> None:
        if self._in_use_by_another(patcher):
            return
        self._eject(patcher)
        handles = [comfy.utils.get_attr(patcher.model, path).register_forward_hook(hook) for path, hook in self._hooks_for(patcher).items()]
        self._injected[patcher.model] = remove = weakref.finalize(patcher, remove_all, handles)
        remove.atexit = False

    def _eject(self, patcher: ModelPatcher) -> None:
        if self._in_use_by_another(patcher):
            return
        remove = self._injected.pop(patcher.model, None)
        if remove:
            remove()

    def _in_use_by_another(self, patcher: ModelPatcher) -> bool:
        remove = self._injected.get(patcher.model)
        pending = remove.peek() if remove else None
        holder = pending[0] if pending else None
        return holder is not None and holder is not patcher and any(loaded is holder for loaded in memory.loaded_models())


def remove_all(handles: list[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
