"""Networks of ours beside a model, which ComfyUI loads, offloads and accounts for with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import comfy.model_management as memory
import torch
from comfy.model_patcher import CoreModelPatcher, ModelPatcher
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def attach(model: ModelPatcher, key: str, build: Callable[[], Network]) -> Network:
    """Attach the network that `build` makes, which is returned, to `model` (a clone that the caller owns).

    `build` is kept, and called again where the model is copied to another card.
    """
    patcher: Any = _patcher(build, model.load_device)
    model.set_additional_models(key, [patcher])
    return patcher.model


def attached(model: ModelPatcher, key: str) -> Any:
    """The network attached under `key`. A copy of the model on another card has one of its own."""
    return model.get_additional_models_with_key(key)[0].model


def _patcher(build: Callable[[], nn.Module], load_device: torch.device, disable_dynamic: bool = False) -> ModelPatcher:
    patcher_class = ModelPatcher if disable_dynamic else CoreModelPatcher
    patcher = patcher_class(build(), load_device=load_device, offload_device=memory.unet_offload_device())
    # Looked for by ComfyUI from 0.30 on, whose copies have modules of their own.
    patcher.cached_patcher_init = (_patcher, (build, load_device))
    return patcher
