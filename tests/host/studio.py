"""The base models of all families, ways to patch them, and results of patches that nothing has happened to."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import comfy.model_management as memory
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from dev.stand_ins.models import build_model as build_stand_in
from dev.stand_ins.seeded import seeded_noise
from dev.stand_ins.weights import flux_lora
from lib_layerdiffuse.comfyui.patch.attention_sharing import share_attention
from lib_layerdiffuse.comfyui.patch.deltas import apply_deltas
from lib_layerdiffuse.comfyui.patch.lora import apply_lora
from tests.host.reference import (
    Conditioning,
    as_the_host_runs,
    assert_differ,
    assert_no_hooks,
    assert_untouched,
    build_model,
    noise,
    prompt,
    sample,
    stand_in_deltas,
    stand_in_sharing,
    watched,
    weights_of,
)

Kind = str

KINDS = ["lora", "switchable lora", "diff", "switchable extras", "single", "given", "flux lora", "switchable flux lora"]
SHARED = ("single", "joint", "given")
EXTRAS = seeded_noise("extras", (1, 8, 16, 16))
PICTURE = torch.sigmoid(seeded_noise("picture", (1, 128, 128, 3)))


@pytest.fixture(autouse=True)
def _host() -> Iterator[None]:
    with as_the_host_runs():
        yield


class Studio:
    """The base models, ways to patch them, and results."""

    def __init__(self, bases: dict[str, ModelPatcher]):
        self.bases = bases
        self.before = {family: weights_of(model) for family, model in bases.items()}
        self.files: dict[str, dict[str, Tensor]] = {
            "lora": stand_in_deltas("lora"),
            "diff": stand_in_deltas("diff"),
            "extras": stand_in_deltas("two extras"),
            "single": stand_in_sharing(1, control=False),
            "joint": stand_in_sharing(3, control=False),
            "given": stand_in_sharing(2, control=True),
            "flux lora": {key: tensor * 4 for key, tensor in flux_lora("lifecycle").items()},
        }
        self.results: dict[str, Tensor] = {}

    def base(self, kind: Kind) -> ModelPatcher:
        return self.bases["flux" if "flux" in kind else "sd15" if kind in SHARED else "sdxl"]

    def patch(self, kind: Kind, model: ModelPatcher | None = None) -> ModelPatcher:
        model = model or self.base(kind)
        end = 0.99 if "switchable" in kind else 1.0
        file = self.files[kind.removeprefix("switchable ")]
        if kind in SHARED:
            return share_attention(model, file, control=PICTURE if kind == "given" else None)
        if "flux" in kind:
            return apply_lora(model, file, end=end)
        return apply_deltas(model, file, extra=EXTRAS if "extra" in kind else None, end=end)

    def prompts(self, model: ModelPatcher) -> tuple[Conditioning, Conditioning | None]:
        if model.model is self.bases["flux"].model:
            return [[seeded_noise("text", (1, 20, 64)), {"pooled_output": seeded_noise("pooled", (1, 32)), "guidance": 3.5}]], None
        family = "sd15" if model.model is self.bases["sd15"].model else "sdxl"
        return prompt(family, 1), prompt(family, 2)

    def sample(self, model: ModelPatcher, rows: int = 6, **options: Any) -> Tensor:
        flux = model.model is self.bases["flux"].model
        count = rows if model.model is self.bases["sd15"].model else 1
        settings = {"steps": 1, "cfg": 1.0 if flux else 3.0, **options}
        return sample(model, *self.prompts(model), noise(count, channels=16 if flux else 4), **settings)

    def fresh(self, kind: Kind) -> Tensor:
        """The result of a patch that nothing has happened to."""
        if kind not in self.results:
            memory.unload_all_models()
            self.results[kind] = self.sample(self.patch(kind))
            memory.unload_all_models()
            assert_differ(self.results[kind], self.plain(kind))
        return self.results[kind]

    def plain(self, kind: Kind) -> Tensor:
        """The result of the base model."""
        name = f"base of {kind}"
        if name not in self.results:
            memory.unload_all_models()
            self.results[name] = self.sample(self.base(kind))
        return self.results[name]

    def check_base(self, kind: Kind) -> None:
        """The base model runs as ever, without hooks, and keeps its weights."""
        base = self.base(kind).clone()
        hooked: list[bool] = []

        def step(apply_model: Callable[..., Tensor], args: dict[str, Any]) -> Tensor:
            hooked.append(any(module._forward_hooks for module in base.model.modules()))
            return apply_model(args["input"], args["timestep"], **args["c"])

        base.set_model_unet_function_wrapper(step)
        assert torch.equal(self.sample(base), self.plain(kind))
        assert hooked == [False]
        assert_no_hooks(base)
        memory.unload_all_models()
        family = next(name for name, model in self.bases.items() if model.model is base.model)
        assert_untouched(base, self.before[family])


@pytest.fixture(scope="module")
def studio() -> Iterator[Studio]:
    with watched(build_model("sd15")) as sd15, watched(build_model("sdxl")) as sdxl, watched(build_stand_in("Flux", 0)) as flux:
        yield Studio({"sd15": sd15, "sdxl": sdxl, "flux": flux})
