"""The names of layers in a LATENT on its way through the host's own nodes, and which rows are then decoded with transparency."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import comfy_extras.nodes_post_processing  # noqa: F401 - it and nodes_latent import each other, and only this order works
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_custom_sampler import BasicScheduler, KSamplerSelect, SamplerCustom
from comfy_extras.nodes_latent import LatentBatch, LatentBatchSeedBehavior
from torch import Tensor

from lib_layerdiffuse.comfyui.layers import ARRANGEMENTS, LAYERS_KEY, check_whole_sets, empty_latent, foreground_rows, layers_in
from lib_layerdiffuse.comfyui.patch.attention_sharing import share_attention
from lib_layerdiffuse.errors import DiaphaneError
from tests.host.reference import as_the_host_runs, build_model, core, prompt, result_of, stand_in_sharing, watched

Latent = dict[str, Any]

JOINT = ARRANGEMENTS[0]
each_arrangement = pytest.mark.parametrize("layers", ARRANGEMENTS, ids=",".join)


@pytest.fixture(autouse=True)
def _host() -> Iterator[None]:
    with as_the_host_runs():
        yield


@pytest.fixture(scope="module")
def joint() -> Iterator[ModelPatcher]:
    with watched(build_model("sd15")) as model:
        yield share_attention(model, stand_in_sharing(3, control=False))


def latent_of(layers: tuple[str, ...] = JOINT, sets: int = 1) -> Latent:
    """Row i holds the number i everywhere."""
    latent = empty_latent(128, 128, layers, sets, torch.device("cpu"))
    return {**latent, "samples": latent["samples"] + torch.arange(len(latent["samples"]))[:, None, None, None]}


def rows_by_content(latent: Latent, layers: tuple[str, ...]) -> list[int]:
    """Rows whose number says that they are foregrounds."""
    numbers = latent["samples"][:, 0, 0, 0].round().int().tolist()
    return [row for row, number in enumerate(numbers) if layers[number % len(layers)] == "foreground"]


# Samplers


def ksampler(model: ModelPatcher, latent: Latent) -> Latent:
    return core.KSampler().sample(model, 1, 2, 3.0, "euler", "normal", prompt("sd15", 1), prompt("sd15", 2), latent)[0]


def ksampler_advanced(model: ModelPatcher, latent: Latent) -> Latent:
    run = core.KSamplerAdvanced().sample
    texts = (prompt("sd15", 1), prompt("sd15", 2))
    (half_way,) = run(model, "enable", 1, 2, 3.0, "euler", "normal", *texts, latent, 0, 1, "enable")
    return run(model, "disable", 1, 2, 3.0, "euler", "normal", *texts, half_way, 1, 10000, "disable")[0]


def sampler_custom(model: ModelPatcher, latent: Latent) -> Latent:
    sigmas = result_of(BasicScheduler.execute(model, "normal", 2, 1.0))
    sampler = result_of(KSamplerSelect.execute("euler"))
    return result_of(SamplerCustom.execute(model, True, 1, 3.0, prompt("sd15", 1), prompt("sd15", 2), sampler, sigmas, latent))


@pytest.mark.parametrize("sampler", [ksampler, ksampler_advanced, sampler_custom])
def test_names_survive_samplers(joint: ModelPatcher, sampler: Callable[[ModelPatcher, Latent], Latent]) -> None:
    latent = empty_latent(128, 128, JOINT, 2, torch.device("cpu"))
    sampled = sampler(joint, latent)
    assert layers_in(sampled) == JOINT
    assert foreground_rows(sampled) == [0, 3]
    assert sampled["samples"].shape == (6, 4, 16, 16)
    assert torch.count_nonzero(latent["samples"]) == 0 and set(latent) == {"samples", LAYERS_KEY}


# Nodes for latents


def upscaled(latent: Latent) -> Latent:
    return core.LatentUpscale().upscale(latent, "nearest-exact", 256, 192, "disabled")[0]


def upscaled_by(latent: Latent) -> Latent:
    return core.LatentUpscaleBy().upscale(latent, "nearest-exact", 1.5)[0]


def masked(latent: Latent) -> Latent:
    return core.SetLatentNoiseMask().set_mask(latent, torch.ones(1, 128, 128))[0]


def cropped(latent: Latent) -> Latent:
    return core.LatentCrop().crop(latent, 64, 64, 0, 0)[0]


def flipped(latent: Latent) -> Latent:
    return core.LatentFlip().flip(latent, "x-axis: vertically")[0]


def same_seed(latent: Latent) -> Latent:
    return result_of(LatentBatchSeedBehavior.execute(latent, "fixed"))


def other_seeds(latent: Latent) -> Latent:
    return result_of(LatentBatchSeedBehavior.execute(latent, "random"))


@each_arrangement
@pytest.mark.parametrize("node", [upscaled, upscaled_by, masked, cropped, flipped, other_seeds, same_seed])
def test_nodes_that_keep_the_batch(node: Callable[[Latent], Latent], layers: tuple[str, ...]) -> None:
    latent = latent_of(layers, sets=2)
    changed = node(latent)
    assert layers_in(changed) == layers
    assert foreground_rows(changed) == foreground_rows(latent) == rows_by_content(latent, layers)


@each_arrangement
@pytest.mark.parametrize("amount", [2, 3])
def test_repeated(layers: tuple[str, ...], amount: int) -> None:
    """Repeat Latent Batch gives more sets."""
    repeated = core.RepeatLatentBatch().repeat(latent_of(layers, sets=2), amount)[0]
    assert foreground_rows(repeated) == rows_by_content(repeated, layers)
    check_whole_sets(len(repeated["samples"]), layers)


@each_arrangement
def test_joined(layers: tuple[str, ...]) -> None:
    """Latent Batch puts sets behind sets."""
    joined = result_of(LatentBatch.execute(latent_of(layers), latent_of(layers, sets=2)))
    assert foreground_rows(joined) == rows_by_content(joined, layers)


@each_arrangement
@pytest.mark.parametrize("length", [1, 2, 3, 4])
@pytest.mark.parametrize("first", [0, 1, 2, 3, 5])
def test_cut_out_of_a_batch(layers: tuple[str, ...], first: int, length: int) -> None:
    """Latent From Batch leaves the names and says where it cut: rows are known for what they are, whole sets or not."""
    sets = 6 // len(layers)
    cut = core.LatentFromBatch().frombatch(latent_of(layers, sets), first, length)[0]
    assert layers_in(cut) == layers
    assert foreground_rows(cut) == rows_by_content(cut, layers)
    again = core.LatentFromBatch().frombatch(cut, len(cut["samples"]) - 1, 1)[0]
    assert foreground_rows(again) == rows_by_content(again, layers)


def test_an_incomplete_set_is_not_sampled(joint: ModelPatcher) -> None:
    """Names do not make a cut batch whole: sharing says what is missing."""
    cut = core.LatentFromBatch().frombatch(latent_of(), 1, 2)[0]
    with pytest.raises(DiaphaneError, match="multiple of 3.*Empty Layer Latent"):
        ksampler(joint, cut)


def test_a_set_cut_out_is_sampled_with_its_own_noise(joint: ModelPatcher) -> None:
    """The second set of two, alone: the host gives its rows the noise that they had in the batch."""
    both = empty_latent(128, 128, JOINT, 2, torch.device("cpu"))
    second = core.LatentFromBatch().frombatch(both, 3, 3)[0]
    assert foreground_rows(second) == [0]
    torch.testing.assert_close(ksampler(joint, second)["samples"], ksampler(joint, both)["samples"][3:], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("sides", [(64, 64), (512, 768), (500, 520), (1, 8192)])
def test_empty_latents_have_whole_sizes(sides: tuple[int, int]) -> None:
    samples: Tensor = empty_latent(*sides, JOINT, 2, torch.device("cpu"))["samples"]
    assert samples.shape[:2] == (6, 4)
    assert all(side % 8 == 0 and side > 0 for side in samples.shape[2:])


@pytest.mark.parametrize(("side", "rounded"), [(95, 64), (96, 128), (160, 192), (224, 256), (1, 64)])
def test_empty_latents_round_halves_up(side: int, rounded: int) -> None:
    samples: Tensor = empty_latent(side, 64, JOINT, 1, torch.device("cpu"))["samples"]
    assert samples.shape[2:] == (8, rounded // 8)
