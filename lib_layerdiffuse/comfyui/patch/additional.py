"""The pack's own networks beside a model, which ComfyUI loads, offloads and accounts for with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import comfy.model_management as memory
from comfy.model_patcher import ModelPatcher
from torch import nn

from ..alpha.managed_network import make_patcher

Network = TypeVar("Network", bound=nn.Module)


def attach(model: ModelPatcher, key: str, build: Callable[[], Network], fill: Callable[[Network, bool], None] = lambda *_: None) -> Network:
    """Attach a network, which is returned, to `model` (a clone that the caller owns); for `build` and `fill` see `make_patcher`."""
    patcher = make_patcher(build, fill, model.load_device, memory.unet_offload_device())
    model.set_additional_models(key, [patcher])
    return patcher.model


def attached(model: ModelPatcher, key: str) -> Any:
    """The network attached under `key`, None if there is none. A copy of the model on another card has one of its own."""
    found = model.get_additional_models_with_key(key)
    return found[0].model if found else None
