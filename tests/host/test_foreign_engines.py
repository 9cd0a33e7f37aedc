"""Models that are run by another engine inside, and models that lack what a file changes: one sentence with a way out."""

# ComfyUI is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from comfy.model_patcher import CoreModelPatcher, ModelPatcher
from torch import nn

from dev.stand_ins.models import build_model as build_stand_in
from dev.stand_ins.weights import flux_lora
from lib_layerdiffuse.comfyui.patch.attention_sharing import share_attention
from lib_layerdiffuse.comfyui.patch.deltas import apply_deltas
from lib_layerdiffuse.comfyui.patch.lora import apply_lora
from lib_layerdiffuse.errors import WeightsError
from tests.host.reference import build_model, stand_in_deltas, stand_in_sharing


class OtherEngine(nn.Module):
    """A network of another pack in the place of ComfyUI's, as Nunchaku and TensorRT loaders put it there: the model's config stays."""

    def __init__(self):
        super().__init__()
        self.transformer_blocks = nn.ModuleList([nn.Linear(8, 8)])
        self.dtype = torch.float32


def apply_flux(model: ModelPatcher, **options: float) -> ModelPatcher:
    return apply_lora(model, flux_lora("foreign"), **options)


def apply_sdxl(model: ModelPatcher, **options: float) -> ModelPatcher:
    return apply_deltas(model, stand_in_deltas("diff"), **options)


def apply_sd15(model: ModelPatcher, **options: float) -> ModelPatcher:
    return share_attention(model, stand_in_sharing(3, control=False), **options)


def model_of(family: str) -> ModelPatcher:
    return build_stand_in("Flux", 0) if family == "flux" else build_model(family)


@pytest.mark.parametrize("end", [1.0, 0.5])
@pytest.mark.parametrize(
    ("family", "apply", "way_out"),
    [
        ("flux", apply_flux, "load it with that engine's own LoRA loader"),
        ("sdxl", apply_sdxl, "load an SDXL checkpoint with ComfyUI's own loader"),
        ("sd15", apply_sd15, "load an SD1.5 checkpoint with ComfyUI's own loader"),
    ],
)
def test_other_engines_are_named(family: str, apply: Callable[..., ModelPatcher], way_out: str, end: float) -> None:
    model = model_of(family)
    model.model.diffusion_model = OtherEngine()
    with pytest.raises(WeightsError, match=way_out) as caught:
        apply(model, end=end)
    message = str(caught.value)
    assert "an engine of its own (OtherEngine)" in message
    assert message.count(". ") == 0 and message.endswith(".") and len(message) < 400, "one sentence"


@pytest.mark.parametrize(
    ("family", "apply", "layer"),
    [
        ("flux", apply_flux, "double_blocks.1.img_attn.qkv"),
        ("sdxl", apply_sdxl, "middle_block.1.proj_in"),
        ("sd15", apply_sd15, "middle_block.1.transformer_blocks.0.attn2.to_k"),
    ],
)
def test_a_layer_that_is_missing_is_named(family: str, apply: Callable[..., ModelPatcher], layer: str) -> None:
    """ComfyUI's own network, but not all of it, as in distilled models."""
    model = model_of(family)
    parent, _, name = layer.rpartition(".")
    model.model.diffusion_model.get_submodule(parent)._modules[name] = nn.Identity()
    with pytest.raises(WeightsError, match=f"diffusion_model.{layer}.weight"):
        apply(CoreModelPatcher(model.model, load_device=model.load_device, offload_device=model.offload_device))
