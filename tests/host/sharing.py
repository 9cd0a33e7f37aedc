"""What the tests of attention sharing in composition start from: the model, three kinds of weights, and results to compare with."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from dev.stand_ins.seeded import seeded_noise
from lib_layerdiffuse.comfyui.patch.attention_sharing import share_attention
from tests.host.reference import as_the_host_runs, noise, prompt, sample, stand_in_sharing, watched
from tests.host.shared_attention import Shared

Weights = dict[str, Tensor]
Apply = Callable[[ModelPatcher], ModelPatcher]

POSITIVE, NEGATIVE = prompt("sd15", 1), prompt("sd15", 2)
each_order = pytest.mark.parametrize("order", ["before", "after"])


@pytest.fixture(autouse=True)
def _host() -> Iterator[None]:
    with as_the_host_runs():
        yield


@pytest.fixture(scope="module")
def sd15(narrow_model: Callable[[str], ModelPatcher]) -> Iterator[ModelPatcher]:
    with watched(narrow_model("sd15")) as model:
        yield model


@pytest.fixture(scope="module")
def joint(seeded: Callable[..., Weights]) -> Weights:
    """Three frames."""
    return seeded("narrow_attention_sharing_plain_f3")


@pytest.fixture(scope="module")
def single() -> Weights:
    """One frame, whose changes the host merges."""
    return stand_in_sharing(1, control=False)


@pytest.fixture(scope="module")
def given() -> Weights:
    """Two frames and a given layer."""
    return stand_in_sharing(2, control=True)


@pytest.fixture(scope="module")
def picture() -> Tensor:
    return torch.sigmoid(seeded_noise("picture", (1, 128, 128, 3)))


@pytest.fixture(scope="module")
def plain(sd15: ModelPatcher) -> Tensor:
    """Three rows of the unpatched model."""
    with as_the_host_runs():
        return sample(sd15, POSITIVE, NEGATIVE, noise(3))


@pytest.fixture(scope="module")
def reference(sd15: ModelPatcher, joint: Weights) -> Shared:
    with as_the_host_runs():
        return Shared(sd15, joint)


@pytest.fixture(scope="module")
def shared(reference: Shared) -> Tensor:
    """Three rows of the reference without anything else."""
    with as_the_host_runs():
        return sample(reference.model, POSITIVE, NEGATIVE, noise(3))


def chained(model: ModelPatcher, weights: Weights, other: Apply, order: str, **options: Any) -> ModelPatcher:
    """Our patch and another node, which comes before or after ours."""
    if order == "before":
        return share_attention(other(model), weights, **options)
    return other(share_attention(model, weights, **options))
