"""What is left of a run: in the model that it used, and in the whole process."""

from __future__ import annotations

import gc
import hashlib
from typing import Any

import comfy.model_base
import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def report(patcher: ModelPatcher) -> dict[str, Any]:
    """Unloads all models, then looks.

    weights: sha256 of every parameter and buffer of the base model. hooks: on its modules. patches: weights and objects that a patch
    has replaced and not put back. models, tensor_bytes: what of them is alive in the process, whoever holds it.
    """
    comfy.model_management.unload_all_models()
    gc.collect()
    model: nn.Module = patcher.model
    replaced = [name for name, module in model.named_modules() if "forward" in vars(module)]
    return {
        "weights": fingerprint(model),
        "hooks": sum(len(getattr(module, name) or ()) for module in model.modules() for name in HOOKS),
        "patches": [*map(str, patcher.backup), *map(str, patcher.object_patches_backup), *replaced],
        "models": sum(issubclass(type(thing), comfy.model_base.BaseModel) for thing in gc.get_objects()),
        "tensor_bytes": sum(alive().values()),
    }


def fingerprint(model: nn.Module) -> str:
    result = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        result.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        result.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return result.hexdigest()


def alive() -> dict[int, int]:
    """{address: bytes} of the memory behind all tensors."""
    # By type: asking a proxy what it is may run anything.
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor) and _has_memory(thing)]
    storages = [tensor.untyped_storage() for tensor in tensors]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def _has_memory(tensor: Any) -> bool:
    """False for what only wraps tensors, as torch.compile leaves them and as quantised weights are: asking these for an address fails."""
    wraps = type(tensor).__torch_dispatch__ is not torch._C._disabled_torch_dispatch_impl
    functional = torch._is_functional_tensor(tensor)  # pyright: ignore[reportPrivateImportUsage]
    return not wraps and not functional and tensor.layout == torch.strided and tensor.device.type != "meta"
