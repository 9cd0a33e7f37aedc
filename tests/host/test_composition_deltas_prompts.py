"""Delta patches and extra channels together with areas, masks, schedules and batches, each against its reference result (reference.py)."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from dev.stand_ins.seeded import seeded_noise
from tests.host.delta_cases import NEGATIVE, POSITIVE, Case, _host, cases, each_extra, each_kind, sdxl, vector
from tests.host.reference import (
    HALF,
    Conditioning,
    area,
    assert_differ,
    assert_same,
    changed,
    chunks_of,
    copy_of,
    core,
    crop,
    delta_changes,
    denoised,
    euler,
    noise,
    prompt,
    sample,
    with_concat,
)

__all__ = ["_host", "cases", "sdxl"]


# Conditioning


@each_extra
def test_area(cases: Callable[[str], Case], kind: str) -> None:
    """The extra channels are cropped with the area; a widened convolution gives the same."""
    case = cases(kind)
    positive = [*POSITIVE, *area(prompt("sdxl", 3), HALF)]
    assert_same(sample(case.ours(), positive, NEGATIVE, noise(1)), case.expected(positive), case.alone)


@each_extra
def test_area_mixes_what_is_inside_and_leaves_what_is_outside(cases: Callable[[str], Case], sdxl: ModelPatcher, kind: str) -> None:
    """One step by hand: whole and part run alone, the part feathered at its left edge as the host does it."""
    case = cases(kind)
    assert case.extra is not None
    text = prompt("sdxl", 3)
    patched = case.ours()
    actual = sample(patched, [*POSITIVE, *area(text, HALF)], None, noise(1), cfg=1.0, steps=1)
    whole = sample(patched, POSITIVE, None, noise(1), cfg=1.0, steps=1)
    feather = torch.ones(16, 8)
    feather[:, 0] = 0.5

    def by_hand(x: Tensor, sigma: float) -> Tensor:
        assert case.extra is not None
        result = denoised(case.model, x, sigma, POSITIVE, c_concat=case.extra, y=vector(sdxl, POSITIVE))
        inside = denoised(case.model, crop(x, HALF), sigma, text, c_concat=crop(case.extra, HALF), y=vector(sdxl, text))
        crop(result, HALF).copy_((crop(result, HALF) + feather * inside) / (1 + feather))
        return result

    assert_same(actual, euler(sdxl, by_hand, noise(1), 1), whole)
    assert torch.allclose(actual[..., :8], whole[..., :8], rtol=1e-4, atol=1e-4)


@each_extra
def test_mask(cases: Callable[[str], Case], kind: str) -> None:
    case = cases(kind)
    mask = torch.zeros(1, 128, 128)
    mask[:, 40:, :80] = 1.0
    for bounds in ("default", "mask bounds"):
        positive = [*POSITIVE, *core.ConditioningSetMask().append(prompt("sdxl", 3), mask, bounds, 0.8)[0]]
        assert_same(sample(case.ours(), positive, NEGATIVE, noise(1)), case.expected(positive), case.alone)


@each_extra
def test_prompt_scheduling(cases: Callable[[str], Case], kind: str) -> None:
    case = cases(kind)
    schedule = core.ConditioningSetTimestepRange().set_range
    positive = [*schedule(prompt("sdxl", 3), 0.0, 0.5)[0], *schedule(POSITIVE, 0.5, 1.0)[0]]
    assert_same(sample(case.ours(), positive, NEGATIVE, noise(1)), case.expected(positive), case.alone)


@each_kind
def test_prompts_of_unequal_length(cases: Callable[[str], Case], sdxl: ModelPatcher, kind: str) -> None:
    case = cases(kind)
    positive = prompt("sdxl", 1, 154)
    plain = sample(sdxl, positive, NEGATIVE, noise(1))
    assert_same(sample(case.ours(), positive, NEGATIVE, noise(1)), case.expected(positive), plain)


@each_extra
def test_prompts_run_together_and_cfg_1_runs_one(cases: Callable[[str], Case], sdxl: ModelPatcher, kind: str) -> None:
    """Extra channels do not keep positive and negative prompt from running in one batch."""
    case = cases(kind)
    for cfg, parts in ((3.0, 2), (1.0, 1)):
        patched, seen = chunks_of(case.ours())
        actual = sample(patched, POSITIVE, NEGATIVE, noise(1), cfg=cfg)
        assert [len(chunk) for chunk in seen] == [parts]
        assert_same(actual, case.expected(cfg=cfg), sample(sdxl, POSITIVE, NEGATIVE, noise(1), cfg=cfg))


@each_extra
def test_little_memory(cases: Callable[[str], Case], sdxl: ModelPatcher, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts that do not fit into memory together run one after the other and give the same."""
    case = cases(kind)
    patched, seen = chunks_of(case.ours())
    monkeypatch.setattr(sdxl.model, "memory_required", lambda *_, **__: 1e30)
    actual = sample(patched, POSITIVE, NEGATIVE, noise(1))
    assert [len(chunk) for chunk in seen] == [1, 1]
    monkeypatch.undo()
    assert_same(actual, case.expected(), sample(sdxl, POSITIVE, NEGATIVE, noise(1)))


# Batches


@each_extra
@pytest.mark.parametrize("given", [1, 2, 3])
def test_one_extra_latent_for_all_or_one_for_each(cases: Callable[[str], Case], sdxl: ModelPatcher, kind: str, given: int) -> None:
    """A batch of two, with one, two or too many given pictures: row by row its own run."""
    case = cases(kind)
    assert case.extra is not None
    extras = seeded_noise("extras", (given, case.extra.shape[1], 16, 16))
    actual = sample(case.ours(extra=extras), POSITIVE, NEGATIVE, noise(2))
    apart = []
    for row in range(2):
        own = extras[row % given][None]
        apart.append(sample(case.model, with_concat(POSITIVE, own), with_concat(NEGATIVE, own), noise(2)[row : row + 1]))
    assert_same(actual, torch.cat(apart), sample(sdxl, POSITIVE, NEGATIVE, noise(2)))


@each_extra
def test_extra_latents_are_brought_to_the_size_of_the_noise(cases: Callable[[str], Case], sdxl: ModelPatcher, kind: str) -> None:
    """Constant ones, so that any way of resizing gives the same."""
    case = cases(kind)
    assert case.extra is not None
    channels = case.extra.shape[1]
    small = torch.linspace(-1, 1, channels).view(1, channels, 1, 1).expand(1, channels, 5, 9)
    large = small[..., :1, :1].expand(1, channels, 16, 24)
    rows = noise(1, size=(16, 24))
    actual = sample(case.ours(extra=small), POSITIVE, NEGATIVE, rows)
    expected = sample(case.model, with_concat(POSITIVE, large), with_concat(NEGATIVE, large), rows)
    assert_same(actual, expected, sample(sdxl, POSITIVE, NEGATIVE, rows))


def test_deltas_of_two_files_add_up(sdxl: ModelPatcher, cases: Callable[[str], Case]) -> None:
    """Transparent (attention) and Blend in one chain, in either order, one merged and one switchable."""
    transparent, blend = cases("lora"), cases("switchable extra")
    merged = changed(sdxl, delta_changes(transparent.weights), delta_changes(blend.weights))
    expected = blend.expected(model=merged)
    for patched in (blend.ours(transparent.ours()), transparent.ours(blend.ours())):
        assert_same(sample(patched, POSITIVE, NEGATIVE, noise(1)), expected, blend.expected())


@pytest.mark.parametrize(
    "kind",
    [
        "diff",
        "extra",
        "switchable diff",
        "switchable extra",
    ],
)
def test_an_inpainting_model_keeps_its_own_channels(sdxl: ModelPatcher, cases: Callable[[str], Case], kind: str) -> None:
    """A base whose first convolution has nine inputs: deltas belong to the first four, extra channels come on top."""
    widened = copy_of(sdxl)
    conv: Any = widened.model.diffusion_model.input_blocks[0][0]
    conv.weight = torch.nn.Parameter(torch.cat([conv.weight, seeded_noise("inpaint", (32, 5, 3, 3)) * 0.1], dim=1), requires_grad=False)
    check_nine_channels(widened, cases(kind))


def check_nine_channels(widened: ModelPatcher, case: Case) -> None:
    rest = seeded_noise("mask and picture", (1, 5, 16, 16))
    by_hand = changed(widened, {key: pad_for_nine(key, change) for key, change in delta_changes(case.weights).items()})
    expected = sample(by_hand, *nine(case, rest, by_hand=True))
    plain = sample(widened, *nine(case, rest, by_hand=False))
    assert_same(sample(case.ours(widened), *nine(case, rest, by_hand=False)), expected, plain)


def pad_for_nine(key: str, change: Tensor) -> Tensor:
    """A delta of the first convolution, with its extra inputs behind the nine that are there."""
    if not key.endswith("input_blocks.0.0.weight"):
        return change
    return torch.cat([change[:, :4], change.new_zeros(change.shape[0], 5, 3, 3), change[:, 4:]], dim=1)


def nine(case: Case, rest: Tensor, by_hand: bool) -> tuple[Conditioning, Conditioning, Tensor]:
    latent = rest if case.extra is None or not by_hand else torch.cat([rest, case.extra], dim=1)
    return with_concat(POSITIVE, latent), with_concat(NEGATIVE, latent), noise(1)


def test_inputs_stay_as_they_were(cases: Callable[[str], Case]) -> None:
    """Neither weights nor conditioning nor the extra latent are written to."""
    case = cases("two switchable extras")
    assert case.extra is not None

    def contents(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {key: tensor.clone() for key, tensor in tensors.items()}

    watched_tensors = {**case.weights, "extra": case.extra, "text": POSITIVE[0][0], "pooled": POSITIVE[0][1]["pooled_output"]}
    before, settings = contents(watched_tensors), set(POSITIVE[0][1])
    patched = case.ours()
    assert_differ(sample(patched, POSITIVE, NEGATIVE, noise(1)), sample(case.base, POSITIVE, NEGATIVE, noise(1)))
    assert all(torch.equal(tensor, before[key]) for key, tensor in watched_tensors.items())
    assert set(POSITIVE[0][1]) == settings and len(POSITIVE[0]) == 2
