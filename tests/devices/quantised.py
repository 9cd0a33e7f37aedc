"""Models whose linear layers are quantised, by ComfyUI itself or as GGUF loaders do it, and the same models with plain weights."""

# ComfyUI is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
# pyright: reportIncompatibleVariableOverride=false
from __future__ import annotations

import collections
import json
from typing import Any

import comfy.lora
import comfy.ops
import comfy.utils
import torch
import torch.nn.functional as F
from comfy.model_patcher import CoreModelPatcher, ModelPatcher
from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor
from torch import Tensor, nn

from dev.stand_ins import shapes
from dev.stand_ins.models import configured
from dev.stand_ins.seeded import seeded_weights
from tests.host import reference

CONFIGS = {**reference.CONFIGS, "flux": ("Flux", shapes.unet_config("Flux"))}
PACKED = "packed"  # as GGUF loaders do it
GROUP = 64  # of weights that convrot_w4a4 rotates together; ComfyUI's own 256 is wider than these layers


def build_quantised(family: str, quantisation: str) -> tuple[ModelPatcher, ModelPatcher]:
    """(a quantised narrow model, the same model with its weights dequantised); "sd15", "sdxl" or "flux", float32 activations."""
    plain = _build(family, None)
    weights = seeded_weights({key: tuple(tensor.shape) for key, tensor in plain.model.diffusion_model.state_dict().items()})
    quantised = _build(family, quantisation)
    if quantisation == PACKED:
        quantised.model.diffusion_model.load_state_dict(weights)
        for module in quantised.model.diffusion_model.modules():
            if isinstance(module, PackedOps.Linear):
                module.weight = nn.Parameter(Packed.of(module.weight), requires_grad=False)
    else:
        quantised.model.diffusion_model.load_state_dict(_stored(weights, quantisation))
    for key in weights:
        weights[key] = _plain(comfy.utils.get_attr(quantised.model.diffusion_model, key))
    plain.model.diffusion_model.load_state_dict(weights)
    return quantised, plain


def _build(family: str, quantisation: str | None) -> ModelPatcher:
    config = configured(*CONFIGS[family], torch.float32, torch.float32)
    if quantisation == PACKED:
        config.custom_operations = PackedOps
    elif quantisation is not None:
        config.quant_config = {"mixed_ops": True}
    patcher = PackedPatcher if quantisation == PACKED else CoreModelPatcher
    cpu = torch.device("cpu")
    return patcher(config.get_model({}, "", device=cpu), load_device=cpu, offload_device=cpu)


def _stored(weights: dict[str, Tensor], quantisation: str) -> dict[str, Tensor]:
    """A state dict as a quantised checkpoint has it: the layers of transformer blocks, as far as the format allows."""
    stored: dict[str, Tensor] = {}
    for key, weight in weights.items():
        inside = any(part in key for part in (".transformer_blocks.", "double_blocks.", "single_blocks."))
        if not (inside and key.endswith(".weight") and weight.ndim == 2 and weight.shape[1] % GROUP == 0):
            stored[key] = weight
            continue
        options: dict[str, Any] = {"convrot_groupsize": GROUP} if quantisation == "convrot_w4a4" else {}
        scale = {} if options else {"scale": "recalculate"}
        layout = QUANT_ALGOS[quantisation]["comfy_tensor_layout"]
        stored |= QuantizedTensor.from_float(weight, layout, **options, **scale).state_dict(key)
        settings = json.dumps({"format": quantisation, **options}).encode()
        stored[f"{key.removesuffix('weight')}comfy_quant"] = torch.tensor(list(settings), dtype=torch.uint8)
    return stored


def _plain(weight: Tensor) -> Tensor:
    if isinstance(weight, QuantizedTensor):
        return weight.dequantize().float()
    return weight.unpacked() if isinstance(weight, Packed) else weight


class Packed(Tensor):
    """A weight in half precision, kept as bytes. As with a GGUF tensor, `shape` is the weight's, and the data has another."""

    logical: torch.Size

    @classmethod
    def of(cls, weight: Tensor) -> Packed:
        packed = weight.detach().half().contiguous().view(torch.uint8).as_subclass(cls)
        packed.logical = weight.shape
        return packed

    @property
    def shape(self) -> torch.Size:
        return self.logical if hasattr(self, "logical") else self.size()

    def detach(self) -> Packed:
        return self

    def to(self, *args: Any, **kwargs: Any) -> Packed:
        return self

    def stored(self) -> Tensor:
        return self.as_subclass(Tensor)

    def unpacked(self) -> Tensor:
        return self.stored().view(torch.float16).float()


class PackedOps(comfy.ops.manual_cast):
    class Linear(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return F.linear(input, _plain(self.weight).to(input), self.bias)

        def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
            super()._save_to_state_dict(destination, prefix, keep_vars)
            if isinstance(self.weight, Packed):
                destination[f"{prefix}weight"] = self.weight.stored()


class PackedPatcher(ModelPatcher):
    """Merges patches into packed weights, which ComfyUI's own patcher cannot."""

    def patch_weight_to_device(self, key: str, *args: Any, **kwargs: Any) -> Any:
        weight = comfy.utils.get_attr(self.model, key)
        if key not in self.patches or not isinstance(weight, Packed):
            return super().patch_weight_to_device(key, *args, **kwargs)
        self.backup[key] = collections.namedtuple("Backup", ["weight", "inplace_update"])(weight, False)
        merged = comfy.lora.calculate_weight(self.patches[key], weight.unpacked(), key)
        comfy.utils.set_attr_param(self.model, key, Packed.of(merged))
