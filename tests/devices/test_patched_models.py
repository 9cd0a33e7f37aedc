"""Patched models compute on a device where neither the model's weights nor those of the patch are."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import comfy.model_management as memory
import pytest
import torch
from comfy.model_patcher import CoreModelPatcher, ModelPatcher
from torch import Tensor

from dev.stand_ins import shapes
from dev.stand_ins.models import configured
from lib_layerdiffuse.comfyui.patch.attention_sharing import share_attention
from lib_layerdiffuse.comfyui.patch.deltas import apply_deltas
from lib_layerdiffuse.comfyui.patch.lora import apply_lora
from lib_layerdiffuse.comfyui.patch.strength import Activity
from tests.devices.elsewhere import DEVICE, elsewhere, fake
from tests.host.reference import SHALLOW, shallow

Weights = dict[str, Tensor]

CONFIGS = {"SD1.5": shapes.unet_config("SD1.5"), "SDXL": SHALLOW, "Flux": shapes.unet_config("Flux")}
DTYPE = torch.float16
PICTURE = (128, 192)


@cache
def model(family: str) -> ModelPatcher:
    config = configured(family, CONFIGS[family], torch.float32, DTYPE)  # layers that bring their weights to the input
    with elsewhere():
        return CoreModelPatcher(config.get_model({}, "", device="cpu"), load_device=DEVICE, offload_device=torch.device("cpu"))


def weights(table: shapes.Shapes) -> Weights:
    return {key: fake(*shape, dtype=DTYPE, device=torch.device("cpu")) for key, shape in table.items()}


def sharing(frames: int, control: bool = False) -> Weights:
    return weights(shapes.attention_sharing_shapes(frames, control=control))


def flux_lora() -> Weights:
    return weights(shapes.flux_lora_shapes())


def control() -> Tensor:
    return fake(1, *PICTURE, 3, device=torch.device("cpu"))


# family, rows of the latent, patch; with an end, nothing is merged
PATCHES: dict[str, tuple[str, int, Callable[[ModelPatcher], ModelPatcher]]] = {
    "one frame": ("SD1.5", 2, lambda m: share_attention(m, sharing(1))),
    "one frame, end": ("SD1.5", 2, lambda m: share_attention(m, sharing(1), end=0.5)),
    "three frames": ("SD1.5", 6, lambda m: share_attention(m, sharing(3))),
    "a given layer": ("SD1.5", 4, lambda m: share_attention(m, sharing(2, control=True), control=control())),
    "attention deltas, end": ("SDXL", 1, lambda m: apply_deltas(m, weights(shallow("transparent_attn")), end=0.5)),
    "conv deltas, end": ("SDXL", 1, lambda m: apply_deltas(m, weights(shallow("transparent_conv")), end=0.5)),
    "extra channels": (
        "SDXL",
        2,
        lambda m: apply_deltas(m, weights(shallow("fg2ble")), extra=fake(1, 4, 16, 24, device=torch.device("cpu"))),
    ),
    "Flux LoRA, end": ("Flux", 1, lambda m: apply_lora(m, flux_lora(), end=0.5)),
}


@pytest.fixture(autouse=True)
def _no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the host asks of a real card, and every patch at work."""
    plenty = 1 << 40
    monkeypatch.setattr(memory, "get_free_memory", lambda device=None, torch_free_too=False: (plenty, plenty) if torch_free_too else plenty)
    monkeypatch.setattr(memory, "supports_fp64", lambda *_: False)
    monkeypatch.setattr(Activity, "is_active", lambda self: True)


@pytest.mark.parametrize("name", PATCHES)
def test_patched_model(name: str) -> None:
    family, rows, patch = PATCHES[name]
    with elsewhere():
        patched = patch(model(family))
        latent_channels = patched.model.latent_format.latent_channels
        latent = fake(rows, latent_channels, PICTURE[0] // 8, PICTURE[1] // 8)
        more: dict[str, Any] = {"SDXL": {"y": fake(rows, 2816)}, "Flux": {"y": fake(rows, 32), "guidance": fake(rows)}}.get(family, {})
        text = fake(rows, 77, CONFIGS[family]["context_in_dim" if family == "Flux" else "context_dim"])
        options = {**patched.model_options["transformer_options"], "cond_or_uncond": [0], "sigmas": fake(1)}
        with patched.use_ejected():
            patched.inject_model()
            patched.model.current_patcher = patched  # as when ComfyUI has loaded it
            result = patched.model.apply_model(latent, fake(rows), c_crossattn=text, transformer_options=options, **more)
            patched.eject_model()
    assert (result.shape, result.device) == (latent.shape, DEVICE)
