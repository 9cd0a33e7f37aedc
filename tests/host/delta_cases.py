"""Every kind of delta patch, and the same worked out by hand, for the tests of deltas in composition."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import pytest
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from dev.stand_ins.seeded import seeded_noise
from lib_layerdiffuse.comfyui.patch.deltas import apply_deltas
from tests.host.reference import (
    Conditioning,
    as_the_host_runs,
    build_model,
    changed,
    delta_changes,
    noise,
    prompt,
    sample,
    stand_in_deltas,
    watched,
    with_concat,
)

Apply = Callable[[ModelPatcher], ModelPatcher]

POSITIVE, NEGATIVE = prompt("sdxl", 1), prompt("sdxl", 2)
EXTRA_CHANNELS = {"lora": 0, "diff": 0, "extra": 4, "two extras": 8}

# File and start. A start just after 0 is active at every step, but makes the patch one that can be switched off.
KINDS = {
    "lora": ("lora", 0.0),
    "switchable lora": ("lora", 1e-9),
    "diff": ("diff", 0.0),
    "switchable diff": ("diff", 1e-9),
    "extra": ("extra", 0.0),
    "switchable extra": ("extra", 1e-9),
    "two switchable extras": ("two extras", 1e-9),
}
each_kind = pytest.mark.parametrize("kind", KINDS)
each_extra = pytest.mark.parametrize("kind", ["extra", "two switchable extras"])
each_order = pytest.mark.parametrize("order", ["before", "after"])


@pytest.fixture(autouse=True)
def _host() -> Iterator[None]:
    with as_the_host_runs():
        yield


@pytest.fixture(scope="module")
def sdxl() -> Iterator[ModelPatcher]:
    with watched(build_model("sdxl")) as model:
        yield model


class Case:
    """One kind of patch, the same worked out by hand, and the results of both without anything else."""

    def __init__(self, sdxl: ModelPatcher, file: str, start: float):
        self.base = sdxl
        self.weights = weights = stand_in_deltas(file)
        self.start = start
        channels = EXTRA_CHANNELS[file]
        self.extra = seeded_noise("extra", (1, channels, 16, 16)) if channels else None
        self.model = changed(sdxl, delta_changes(weights))

    def ours(self, model: ModelPatcher | None = None, **options: Any) -> ModelPatcher:
        return apply_deltas(model or self.base, self.weights, **{"extra": self.extra, "start": self.start, **options})

    def chained(self, other: Apply, order: str) -> ModelPatcher:
        """Our patch and another node, which comes before or after ours."""
        return self.ours(other(self.base)) if order == "before" else other(self.ours())

    def seen(self, conditioning: Conditioning) -> Conditioning:
        """The reference gets its extra channels by way of the conditioning."""
        return conditioning if self.extra is None else with_concat(conditioning, self.extra)

    @cached_property
    def alone(self) -> Tensor:
        """The reference without anything else."""
        return self.expected()

    def expected(self, positive: Conditioning = POSITIVE, negative: Conditioning = NEGATIVE, model: Any = None, **options: Any) -> Tensor:
        return sample(model or self.model, self.seen(positive), self.seen(negative), noise(1), **options)


@pytest.fixture(scope="module")
def cases(sdxl: ModelPatcher) -> Callable[[str], Case]:
    made: dict[str, Case] = {}

    def case(kind: str) -> Case:
        if kind not in made:
            made[kind] = Case(sdxl, *KINDS[kind])
        return made[kind]

    return case


def vector(sdxl: ModelPatcher, conditioning: Conditioning) -> Tensor:
    """SDXL's vector input for a 128 x 128 picture."""
    return sdxl.model.encode_adm(pooled_output=conditioning[0][1]["pooled_output"], width=128, height=128, device="cpu")
