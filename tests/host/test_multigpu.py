"""Models whose conditions run on two cards at once (MultiGPU CFG Split), here two names of the processor: cpu and cpu:0.

All but the cards themselves is ComfyUI's own: the copies, the threads and what each of them is given to do.
"""

# ComfyUI is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import comfy.model_management as memory
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from dev.stand_ins.seeded import seeded_noise
from lib_layerdiffuse.comfyui.models.mini import load_mini
from lib_layerdiffuse.comfyui.patch.attention_sharing import share_attention
from lib_layerdiffuse.comfyui.patch.deltas import apply_deltas
from lib_layerdiffuse.comfyui.patch.unmerged import Bypass
from lib_layerdiffuse.nets.attention_sharing import SharingUnit
from tests.host.reference import (
    as_the_host_runs,
    assert_no_hooks,
    assert_same,
    build_model,
    noise,
    prompt,
    sample,
    stand_in_deltas,
    stand_in_sharing,
)

multigpu: Any = pytest.importorskip("comfy.multigpu", reason="optional: this ComfyUI runs models on one card only")

PICTURE = torch.sigmoid(seeded_noise("picture", (1, 128, 128, 3)))
SECOND = torch.device("cpu", 0)
KINDS = {"joint": 3, "from layer": 2, "transparent": 1, "transparent, switchable": 1, "switchable lora": 1, "switchable extras": 1}


@pytest.fixture(autouse=True)
def _host(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(memory, "get_all_torch_devices", lambda exclude_current=False: [torch.device("cpu"), SECOND])
    with as_the_host_runs():
        yield
    memory.unload_all_models()


def family_of(kind: str) -> str:
    return "sdxl" if kind in ("switchable lora", "switchable extras") else "sd15"


def loaded(family: str, disable_dynamic: bool = False) -> ModelPatcher:
    """A model as a loader of ComfyUI's own gives it: with a way to make it again."""
    model = build_model(family)
    model.cached_patcher_init = (loaded, (family,))
    return model


def ours(kind: str, model: ModelPatcher) -> ModelPatcher:
    end = 0.999 if "switchable" in kind else 1.0
    if kind == "switchable lora":
        return apply_deltas(model, stand_in_deltas("lora"), end=end)
    if kind == "switchable extras":
        return apply_deltas(model, stand_in_deltas("two extras"), extra=seeded_noise("extras", (1, 8, 16, 16)), end=end)
    control = PICTURE if kind == "from layer" else None
    return share_attention(model, stand_in_sharing(KINDS[kind], control=control is not None), control=control, end=end)


def split(model: ModelPatcher) -> ModelPatcher:
    """The node MultiGPU CFG Split."""
    return multigpu.create_multigpu_deepclones(model, 2, reuse_loaded=True)


def run(model: ModelPatcher, kind: str) -> Tensor:
    family = family_of(kind)
    return sample(model, prompt(family, 1), prompt(family, 2), noise(KINDS[kind]))


def watch(monkeypatch: pytest.MonkeyPatch, network: type[Any], method: str) -> dict[int, set[int]]:
    """{thread: networks whose method it has called}, filled as models run."""
    seen: dict[int, set[int]] = {}
    original = getattr(network, method)

    def watching(self: Any, *args: Any) -> Any:
        seen.setdefault(threading.get_ident(), set()).add(id(self))
        return original(self, *args)

    monkeypatch.setattr(network, method, watching)
    return seen


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "joint"])
def test_two_cards_give_what_one_gives(monkeypatch: pytest.MonkeyPatch, kind: str, order: str) -> None:
    """Each with networks of its own, in both runs: the second finds the models loaded."""
    base = loaded(family_of(kind))
    expected, plain = run(ours(kind, base), kind), run(base, kind)
    patched = ours(kind, split(base)) if order == "before" else split(ours(kind, base))
    seen = watch(monkeypatch, *((SharingUnit, "temporal") if family_of(kind) == "sd15" else (Bypass, "forward")))
    for _ in range(2):
        seen.clear()
        assert_same(run(patched, kind), expected, plain)
        assert len(seen) == 2, "positive and negative prompt were to run in a thread each"
        first, second = seen.values()
        assert len(first) == len(second) > 0 and not first & second
    (copied,) = patched.get_additional_models_with_key("multigpu")
    assert copied.model is not base.model and copied.load_device == SECOND
    memory.unload_all_models()
    assert_no_hooks(base)
    assert_no_hooks(copied)


@pytest.mark.parametrize("kind", KINDS)
def test_additional_models_can_be_made_again(kind: str) -> None:
    patched = ours(kind, loaded(family_of(kind)))
    assert patched.get_additional_models()
    for model in patched.get_additional_models():
        for copied in (model.clone(force_deepcopy=True), model.deepclone_multigpu(new_load_device=SECOND)):
            assert copied.model is not model.model
            assert copied.model.state_dict().keys() == model.model.state_dict().keys()
            weights = copied.model.state_dict()
            for key, tensor in model.model.state_dict().items():
                assert torch.equal(weights[key], tensor)


def test_the_mini_models_can_be_made_again() -> None:
    model, clip, vae = load_mini()
    for patcher in (model, clip.patcher, vae.patcher):
        for copied in (patcher.clone(force_deepcopy=True), patcher.deepclone_multigpu(new_load_device=SECOND)):
            assert copied.model is not patcher.model
            weights = copied.model.state_dict()
            for key, tensor in patcher.model.state_dict().items():
                # The text encoder's file leaves two weights out that nothing uses, and ComfyUI leaves them as memory happens to be.
                assert torch.equal(weights[key], tensor) or key.endswith(("text_projection.weight", "logit_scale"))
