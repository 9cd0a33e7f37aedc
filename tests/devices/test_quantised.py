"""Patches of quantised models give what the same patches give on the same weights that are not quantised."""

# ComfyUI is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from dev.stand_ins.seeded import seeded_noise
from dev.stand_ins.weights import flux_lora
from lib_layerdiffuse.comfyui.patch.attention_sharing import share_attention
from lib_layerdiffuse.comfyui.patch.deltas import apply_deltas
from lib_layerdiffuse.comfyui.patch.lora import apply_lora
from tests.devices.quantised import PACKED, build_quantised
from tests.host.reference import as_the_host_runs, noise, prompt, sample, stand_in_deltas, stand_in_sharing

Apply = Callable[..., ModelPatcher]
KINDS = {"flux lora": "flux", "lora": "sdxl", "diff": "sdxl", "single": "sd15", "joint": "sd15"}
# How much alike two changes of a picture are (as a cosine) if one of them was merged into weights of so many bits.
LIKENESS = {
    "float8_e4m3fn": 0.9,
    "mxfp8": 0.85,
    "int8_tensorwise": 0.95,
    "nvfp4": 0.7,
    "convrot_w4a4": 0.6,
    PACKED: 0.999,
}
each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def _host() -> Iterator[None]:
    with as_the_host_runs():
        yield


@pytest.fixture(scope="module")
def patches() -> dict[str, Apply]:
    lora = {key: tensor * 4 for key, tensor in flux_lora("quantised").items()}
    deltas = {kind: stand_in_deltas(kind) for kind in ("lora", "diff")}
    sharing = {"single": stand_in_sharing(1, control=False), "joint": stand_in_sharing(3, control=False)}
    return {
        "flux lora": lambda model, **options: apply_lora(model, lora, **options),
        **{kind: lambda model, k=kind, **options: apply_deltas(model, deltas[k], **options) for kind in deltas},
        **{kind: lambda model, k=kind, **options: share_attention(model, sharing[k], **options) for kind in sharing},
    }


class Models:
    """Quantised models and their plain twins, by family."""

    def __init__(self, quantisation: str):
        self.quantisation = quantisation
        self.made: dict[str, tuple[ModelPatcher, ModelPatcher]] = {}

    def __call__(self, family: str) -> tuple[ModelPatcher, ModelPatcher]:
        if family not in self.made:
            self.made[family] = build_quantised(family, self.quantisation)
        return self.made[family]


@pytest.fixture(scope="module", params=LIKENESS)
def build(request: pytest.FixtureRequest) -> Models:
    return Models(request.param)


def run(model: ModelPatcher, kind: str) -> Tensor:
    if kind == "flux lora":
        settings = {"pooled_output": seeded_noise("pooled", (1, 32)), "guidance": 3.5}
        text, rows = [[seeded_noise("text", (1, 20, 64)), settings]], noise(1, channels=16)
    else:
        text, rows = prompt(KINDS[kind], 1), noise(3 if kind == "joint" else 1)
    return sample(model, text, None, rows, cfg=1.0, steps=1)


@each_kind
def test_a_range(build: Models, patches: dict[str, Apply], kind: str) -> None:
    """Beside the layers, no changed weight is rounded."""
    rounded = build.quantisation in ("int8_tensorwise", "convrot_w4a4")  # on a processor too, they round what goes into a layer
    check(build, patches[kind], kind, LIKENESS[build.quantisation] if rounded else 0.999, end=0.5)


@each_kind
def test_the_whole_range(build: Models, patches: dict[str, Apply], kind: str) -> None:
    """Merged, the changed weights are quantised anew, with the step of their format."""
    check(build, patches[kind], kind, LIKENESS[build.quantisation])


def check(build: Models, patch: Apply, kind: str, likeness: float, **options: Any) -> None:
    """What the patch changes in one step is what it changes with the same weights, not quantised."""
    quantised, plain = build(KINDS[kind])
    expected = run(patch(plain, **options), kind) - run(plain, kind)
    actual = run(patch(quantised, **options), kind) - run(quantised, kind)
    assert torch.cosine_similarity(actual.flatten(), expected.flatten(), dim=0) > likeness
    assert 0.9 < actual.norm() / expected.norm() < 1.1
