"""Weight patches that can be switched off between two sampling steps.

Merged patches cost nothing at run time but cannot be switched off during the sampling. The layers of these networks are affine in their
weights, so a change of weight equals a bypass, a second layer with the change alone: `f(x, W + dW) = f(x, W) + f(x, dW)`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import comfy.ops
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import LoRAAdapter
from torch import Tensor, nn

from ...errors import DiaphaneError
from ...nets.low_rank import LowRank
from ...nets.operations import layer_with
from .additional import attach, attached
from .forward_hooks import ForwardHook, ForwardHooks
from .strength import Activity

# What ModelPatcher.add_patches takes: key, or (key, (dimension, start, length)) -> adapter or ("diff", (tensor,))
PatchKey = str | tuple[Any, ...]
Patches = dict[PatchKey, Any]


class Change(NamedTuple):
    """One patch of a module: of its weight or bias, whole or the part (dimension, start, length) of it."""

    parameter: str
    part: tuple[int, int, int] | None
    patch: Any


def add_unmerged(model: ModelPatcher, patches: Patches, activity: Activity, key: str) -> None:
    """Apply `patches` to `model` (a clone that the caller owns) as bypasses of its modules.

    The bypasses are in an additional model, so ComfyUI loads, offloads and accounts for them.
    """
    by_module: dict[str, list[Change]] = {}
    for patch_key, patch in patches.items():
        weight_key, part = (patch_key, None) if isinstance(patch_key, str) else patch_key[:2]
        path, parameter = weight_key.rsplit(".", 1)
        by_module.setdefault(path, []).append(Change(parameter, part, patch))

    modules = {path: comfy.utils.get_attr(model.model, path) for path in by_module}

    def build() -> nn.Module:
        return nn.ModuleList(Bypass(modules[path], path, changes) for path, changes in by_module.items())

    def hooks_for(patcher: ModelPatcher) -> dict[str, ForwardHook]:
        return {path: _adding_hook(bypass, activity) for path, bypass in zip(by_module, attached(patcher, key), strict=True)}

    attach(model, key, build)
    model.set_injections(key, [ForwardHooks(hooks_for)])


def _adding_hook(bypass: Bypass, activity: Activity) -> ForwardHook:
    def add(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        return bypass(args[0], output, activity.weight) if activity.is_active() else None

    return add


class Bypass(nn.Module):
    """Layers beside one module that hold the changes of its weights."""

    def __init__(self, module: nn.Module, path: str, changes: list[Change]):
        super().__init__()
        layers = _bypass_layers(module, path, changes)
        self.layers = nn.ModuleList(layer for layer, _ in layers)
        self.rows = [rows for _, rows in layers]

    def forward(self, x: Tensor, output: Tensor, weight: float) -> Tensor:
        """The module's output for x with all changes added, `weight` times; both of the same dtype and on the same device."""
        for layer, rows in zip(self.layers, self.rows, strict=True):
            change = layer(x)
            if rows is None:
                output = torch.add(output, change, alpha=weight)
            else:
                output[..., rows] += change * weight
        return output


def _bypass_layers(module: nn.Module, path: str, changes: list[Change]) -> list[tuple[nn.Module, slice | None]]:
    """The layers that hold a module's changes, each with the output rows that it changes (None: all)."""
    layers: list[tuple[nn.Module, slice | None]] = []
    diffs: dict[str, Tensor] = {}
    for change in changes:
        if isinstance(change.patch, LoRAAdapter):
            up, down, alpha, mid, dora_scale, reshape = change.patch.weights
            by_rows = change.part is None or change.part[0] == 0
            if not _is_linear(module) or not by_rows or mid is not None or dora_scale is not None or reshape is not None:
                raise DiaphaneError(
                    f"The patch of {path} is no plain low-rank patch of a linear layer and works only with start 0 and end 1."
                )
            scale = 1.0 if alpha is None else alpha / down.shape[0]
            rows = None if change.part is None else slice(change.part[1], change.part[1] + change.part[2])
            layers.append((_low_rank(up * scale if scale != 1.0 else up, down), rows))
        elif isinstance(change.patch, tuple) and change.patch[0] == "diff":
            diff = change.patch[1][0]
            if change.part is not None:
                whole = diff.new_zeros(getattr(module, change.parameter).shape)
                whole.narrow(*change.part).copy_(diff)
                diff = whole
            diffs[change.parameter] = diff
        else:
            raise DiaphaneError(f"The patch of {path} works only with start 0 and end 1.")
    if diffs:
        layers.append((_diff_layer(module, path, diffs.get("weight"), diffs.get("bias")), None))
    return layers


def _low_rank(up: Tensor, down: Tensor) -> nn.Module:
    layer = LowRank(down.shape[1], up.shape[0], down.shape[0], comfy.ops.manual_cast, device="meta", dtype=up.dtype)
    layer.load_state_dict({"down.weight": down, "up.weight": up}, assign=True)
    return layer


def _is_linear(module: nn.Module) -> bool:
    """By what it has: the linear layers of quantised models are of other classes than torch's."""
    return hasattr(module, "in_features") and hasattr(module, "out_features")


def _diff_layer(module: Any, path: str, weight: Tensor | None, bias: Tensor | None) -> nn.Module:
    """A layer of the module's kind that holds the change of its weight and bias."""
    if weight is None:
        assert bias is not None  # there is a change of one of them
        weight = bias.new_zeros(module.weight.shape)
    change = {"weight": weight}
    if bias is not None:
        change["bias"] = bias
    ops = comfy.ops.manual_cast
    if _is_linear(module):
        return layer_with(ops.Linear, change, module.in_features, module.out_features, bias="bias" in change)
    if hasattr(module, "kernel_size") and len(module.kernel_size) == 2:
        return layer_with(
            ops.Conv2d,
            change,
            change["weight"].shape[1] * module.groups,
            module.out_channels,
            module.kernel_size,
            stride=module.stride,
            padding=module.padding,
            dilation=module.dilation,
            groups=module.groups,
            bias="bias" in change,
        )
    change.setdefault("bias", torch.zeros_like(change["weight"]))
    if hasattr(module, "num_groups"):
        return layer_with(ops.GroupNorm, change, module.num_groups, module.num_channels, eps=module.eps)
    if hasattr(module, "normalized_shape"):
        return layer_with(ops.LayerNorm, change, module.normalized_shape, eps=module.eps)
    raise DiaphaneError(f"The patch of {path} ({type(module).__name__}) works only with start 0 and end 1.")
