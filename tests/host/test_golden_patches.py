"""Deltas and attention sharing in a real ModelPatcher against the published implementations (tests/golden/README.md)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import comfy.model_management
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from lib_layerdiffuse.comfyui.patch.attention_sharing import share_attention
from lib_layerdiffuse.comfyui.patch.deltas import apply_deltas

Golden = Callable[[str], dict[str, Tensor]]
Seeded = Callable[..., dict[str, Tensor]]

TOLERANCE = 5e-4
DELTA_FILES = json.loads((Path(__file__).parents[1] / "golden" / "narrow_sdxl.json").read_text())["files"]
SHARING_FILES = {
    "single": "plain_f1",
    "joint": "plain_f3",
    "joint_batch2": "plain_f3",
    "from_fg": "control_f2",
    "from_bg_batch2": "control_f2",
}


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def sdxl(narrow_model: Callable[[str], ModelPatcher]) -> Iterator[ModelPatcher]:
    yield from watched(narrow_model("sdxl"))


@pytest.fixture(scope="module")
def sd15(narrow_model: Callable[[str], ModelPatcher]) -> Iterator[ModelPatcher]:
    yield from watched(narrow_model("sd15"))


def watched(model: ModelPatcher) -> Iterator[ModelPatcher]:
    """Whatever the tests do with a model, it is bit-identical in the end and carries no hook."""
    before = {key: tensor.clone() for key, tensor in model.model.state_dict().items()}
    yield model
    comfy.model_management.unload_all_models()
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.model.modules())


def denoise(model: ModelPatcher, x: Tensor, sigma: Tensor, **conds: Tensor) -> Tensor:
    comfy.model_management.load_models_gpu([model, *model.get_nested_additional_models()])
    options: dict[str, Any] = {"cond_or_uncond": [0, 1], "sigmas": sigma, **model.model_options["transformer_options"]}
    return model.model.apply_model(x, sigma, transformer_options=options, **conds)


def deltas_case(name: str, golden: Golden, seeded: Seeded) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    data = golden("sdxl_deltas")
    rows = len(data["x"])
    inputs = {
        "x": data["x"],
        "sigma": data["sigma"],
        "c_crossattn": data["cond"].expand(rows, -1, -1),
        "y": data["y"].expand(rows, -1),
    }
    weights = {key: tensor * DELTA_FILES[name]["gain"] for key, tensor in seeded(f"narrow_sdxl_{name}").items()}
    return data, inputs, weights


def test_base_sdxl(sdxl: ModelPatcher, golden: Golden, seeded: Seeded) -> None:
    data, inputs, _ = deltas_case("fg2ble", golden, seeded)
    assert torch.allclose(denoise(sdxl, **inputs), data["base_denoised"], atol=TOLERANCE, rtol=0)


# An end just short of 1 is active at every step, but makes the patch one that can be switched off.
@pytest.mark.parametrize("end", [1.0, 0.999], ids=["merged", "switchable"])
@pytest.mark.parametrize("weight", [1.0, 0.5])
@pytest.mark.parametrize("name", DELTA_FILES)
def test_deltas(sdxl: ModelPatcher, golden: Golden, seeded: Seeded, name: str, weight: float, end: float) -> None:
    data, inputs, weights = deltas_case(name, golden, seeded)
    patched = apply_deltas(sdxl, weights, weight=weight, end=end, extra=data.get(f"{name}.concat"))
    expected = data[f"{name}.weight_{weight}.denoised"]
    assert (expected - data["base_denoised"]).abs().max() > 20 * TOLERANCE, "the golden case has to differ from the base"
    assert torch.allclose(denoise(patched, **inputs), expected, atol=TOLERANCE, rtol=0)


def sharing_inputs(case: str, data: dict[str, Tensor], layer_prompts: bool) -> dict[str, Tensor]:
    x, sigma = data[f"{case}.x"], data[f"{case}.sigma"]
    rows = len(x)
    cond = data[f"{case}.cond"].expand(rows, -1, -1)
    if layer_prompts:
        frames = [data[key] for key in sorted(data) if key.startswith(f"{case}.layer_cond.")]
        cond = torch.cat([frames[row % len(frames)] for row in range(rows)])
    uncond = data[f"{case}.uncond"].expand(rows, -1, -1)
    return {"x": torch.cat((x, x)), "sigma": torch.cat((sigma, sigma)), "c_crossattn": torch.cat((cond, uncond))}


@pytest.mark.parametrize("case", SHARING_FILES)
def test_base_sd15(sd15: ModelPatcher, golden: Golden, case: str) -> None:
    data = golden("attention_sharing")
    assert torch.allclose(denoise(sd15, **sharing_inputs(case, data, False)), data[f"{case}.base_denoised"], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("layer_prompts", [False, True], ids=["one_prompt", "layer_prompts"])
@pytest.mark.parametrize("case", SHARING_FILES)
def test_attention_sharing(sd15: ModelPatcher, golden: Golden, seeded: Seeded, case: str, layer_prompts: bool) -> None:
    data = golden("attention_sharing")
    if layer_prompts and case == "single":
        layer_prompts = False  # one frame has no prompts of its own
    control = data.get(f"{case}.control_image")
    patched = share_attention(
        sd15, seeded(f"narrow_attention_sharing_{SHARING_FILES[case]}"), control=None if control is None else control.movedim(1, -1)
    )
    expected = data[f"{case}.denoised_layer_conds" if layer_prompts else f"{case}.denoised"]
    assert torch.allclose(denoise(patched, **sharing_inputs(case, data, layer_prompts)), expected, atol=TOLERANCE, rtol=0)
