"""Attention sharing together with areas, masks, schedules, ControlNets and batches, each against its reference result (reference.py)."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from dev.stand_ins.models import build_controlnet
from dev.stand_ins.seeded import seeded_noise
from lib_layerdiffuse.comfyui.layers import BACKGROUND, BLENDED, FOREGROUND, layer_prompts
from lib_layerdiffuse.comfyui.patch.attention_sharing import share_attention
from lib_layerdiffuse.errors import DiaphaneError
from tests.host.reference import HALF, area, assert_same, chunks_of, core, crop, denoised, euler, noise, prompt, sample
from tests.host.shared_attention import Shared
from tests.host.sharing import NEGATIVE, POSITIVE, Weights, _host, each_order, given, joint, picture, plain, reference, sd15, shared

__all__ = ["_host", "given", "joint", "picture", "plain", "reference", "sd15", "shared"]

LEFT, RIGHT = (16, 8, 0, 0), HALF


# Conditioning


@pytest.mark.parametrize("frames", [2, 3])
def test_controlnet(sd15: ModelPatcher, joint: Weights, given: Weights, picture: Tensor, reference: Shared, frames: int) -> None:
    rows = noise(frames)
    image = torch.sigmoid(seeded_noise("edges", (1, 128, 128, 3)))
    apply = core.ControlNetApplyAdvanced().apply_controlnet
    positive, negative = apply(POSITIVE, NEGATIVE, build_controlnet("SD1.5", 0), image, 1.0, 0.0, 1.0)
    if frames == 2:
        expected, patched = Shared(sd15, given, picture=picture).model, share_attention(sd15, given, control=picture)
    else:
        expected, patched = reference.model, share_attention(sd15, joint)
    without = sample(expected, POSITIVE, NEGATIVE, rows)
    assert_same(sample(patched, positive, negative, rows), sample(expected, positive, negative, rows), without)


def test_mask(sd15: ModelPatcher, joint: Weights, reference: Shared, shared: Tensor) -> None:
    mask = torch.zeros(1, 128, 128)
    mask[:, 40:, :80] = 1.0
    masked = core.ConditioningSetMask().append(prompt("sd15", 3), mask, "default", 0.8)[0]
    positive = [*POSITIVE, *masked]
    actual = sample(share_attention(sd15, joint), positive, NEGATIVE, noise(3))
    assert_same(actual, sample(reference.model, positive, NEGATIVE, noise(3)), shared)


def test_mask_bounds(sd15: ModelPatcher, given: Weights, picture: Tensor) -> None:
    """A mask that also crops: the given layer is cropped with it."""
    mask = torch.zeros(1, 128, 128)
    mask[:, :, 64:] = 1.0
    positive = [*POSITIVE, *core.ConditioningSetMask().append(prompt("sd15", 3), mask, "mask bounds", 1.0)[0]]
    expected = steered_by_part(sd15, given, picture)
    without = sample(expected, POSITIVE, NEGATIVE, noise(2))
    actual = sample(share_attention(sd15, given, control=picture), positive, NEGATIVE, noise(2))
    assert_same(actual, sample(expected, positive, NEGATIVE, noise(2)), without)


def test_area(sd15: ModelPatcher, joint: Weights, reference: Shared, shared: Tensor) -> None:
    positive = [*POSITIVE, *area(prompt("sd15", 3), HALF)]
    actual = sample(share_attention(sd15, joint), positive, NEGATIVE, noise(3))
    assert_same(actual, sample(reference.model, positive, NEGATIVE, noise(3)), shared)


def steered_by_part(sd15: ModelPatcher, weights: Weights, picture: Tensor) -> ModelPatcher:
    """The reference, told by the width of what it gets whether that is the whole or the right half."""
    written_out = Shared(sd15, weights)
    right = crop(picture.movedim(-1, 1), HALF, 8).movedim(1, -1)

    def step(apply_model: Callable[..., Tensor], args: dict[str, Any]) -> Tensor:
        written_out.steer([picture if args["input"].shape[3] == 16 else right])
        return apply_model(args["input"], args["timestep"], **args["c"])

    result = written_out.model.clone()
    result.set_model_unet_function_wrapper(step)
    return result


@pytest.mark.parametrize("sets", [1, 2])
def test_area_crops_the_given_layer(sd15: ModelPatcher, given: Weights, picture: Tensor, sets: int) -> None:
    rows = noise(2 * sets)
    positive = [*POSITIVE, *area(prompt("sd15", 3), HALF)]
    expected = steered_by_part(sd15, given, picture)
    without = sample(expected, POSITIVE, NEGATIVE, rows)
    actual = sample(share_attention(sd15, given, control=picture), positive, NEGATIVE, rows)
    assert_same(actual, sample(expected, positive, NEGATIVE, rows), without)


def test_areas_in_one_batch_get_their_own_crops(sd15: ModelPatcher, given: Weights, picture: Tensor) -> None:
    """The host runs two areas of one size together; by hand each is run alone, on its own part of everything, without a host."""
    texts = {LEFT: prompt("sd15", 3), RIGHT: prompt("sd15", 4)}
    positive = [entry for part, text in texts.items() for entry in area(text, part)]
    patched, seen = chunks_of(share_attention(sd15, given, control=picture))
    actual = sample(patched, positive, None, noise(2), cfg=1.0)
    assert seen == [[0, 0]], "the host was to run both areas in one batch"
    written_out = Shared(sd15, given)

    def by_hand(x: Tensor, sigma: float) -> Tensor:
        result = torch.zeros_like(x)
        for part, text in texts.items():
            written_out.steer([crop(picture.movedim(-1, 1), part, 8).movedim(1, -1)])
            crop(result, part).copy_(denoised(written_out.model, crop(x, part), sigma, text))
        return result

    swapped = sample(patched, [*area(texts[LEFT], RIGHT), *area(texts[RIGHT], LEFT)], None, noise(2), cfg=1.0)
    assert_same(actual, euler(sd15, by_hand, noise(2), 1), swapped)


def test_area_mixes_what_is_inside_and_leaves_what_is_outside(sd15: ModelPatcher, given: Weights, picture: Tensor) -> None:
    """One step by hand: whole and part run alone, the part feathered at its left edge as the host does it."""
    text = prompt("sd15", 3)
    patched = share_attention(sd15, given, control=picture)
    actual = sample(patched, [*POSITIVE, *area(text, HALF)], None, noise(2), cfg=1.0, steps=1)
    whole = sample(patched, POSITIVE, None, noise(2), cfg=1.0, steps=1)
    written_out = Shared(sd15, given)
    feather = torch.ones(16, 8)
    feather[:, 0] = 0.5

    def by_hand(x: Tensor, sigma: float) -> Tensor:
        written_out.steer([picture])
        result = denoised(written_out.model, x, sigma, POSITIVE)
        written_out.steer([crop(picture.movedim(-1, 1), HALF, 8).movedim(1, -1)])
        inside = denoised(written_out.model, crop(x, HALF), sigma, text)
        crop(result, HALF).copy_((crop(result, HALF) + feather * inside) / (1 + feather))
        return result

    assert_same(actual, euler(sd15, by_hand, noise(2), 1), whole)
    assert torch.allclose(actual[..., :8], whole[..., :8], rtol=1e-4, atol=1e-4)


def test_prompt_scheduling(sd15: ModelPatcher, joint: Weights, reference: Shared, shared: Tensor) -> None:
    schedule = core.ConditioningSetTimestepRange().set_range
    positive = [*schedule(prompt("sd15", 3), 0.0, 0.5)[0], *schedule(POSITIVE, 0.5, 1.0)[0]]
    actual = sample(share_attention(sd15, joint), positive, NEGATIVE, noise(3))
    assert_same(actual, sample(reference.model, positive, NEGATIVE, noise(3)), shared)


@pytest.mark.parametrize("tokens", [(77, 154), (154, 77), (231, 154)], ids=str)
def test_prompts_of_unequal_length(sd15: ModelPatcher, joint: Weights, reference: Shared, plain: Tensor, tokens: tuple[int, int]) -> None:
    """By hand: each prompt alone, at its own length."""
    positive, negative = prompt("sd15", 1, tokens[0]), prompt("sd15", 2, tokens[1])

    def guided(x: Tensor, sigma: float) -> Tensor:
        away = denoised(reference.model, x, sigma, negative)
        return away + 3.0 * (denoised(reference.model, x, sigma, positive) - away)

    actual = sample(share_attention(sd15, joint), positive, negative, noise(3))
    assert_same(actual, euler(sd15, guided, noise(3), 1), plain)


def test_cfg_1_runs_the_positive_prompt_alone(sd15: ModelPatcher, joint: Weights, reference: Shared) -> None:
    patched, seen = chunks_of(share_attention(sd15, joint))
    actual = sample(patched, POSITIVE, NEGATIVE, noise(3), cfg=1.0)
    assert seen == [[0]]
    expected = euler(sd15, lambda x, sigma: denoised(reference.model, x, sigma, POSITIVE), noise(3), 1)
    assert_same(actual, expected, sample(sd15, POSITIVE, NEGATIVE, noise(3), cfg=1.0))


@pytest.mark.parametrize("control", [False, True], ids=["joint", "given"])
def test_little_memory(
    sd15: ModelPatcher, joint: Weights, given: Weights, picture: Tensor, control: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts that do not fit into memory together run one after the other and give the same."""
    patched = share_attention(sd15, given, control=picture) if control else share_attention(sd15, joint)
    patched, seen = chunks_of(patched)
    rows = noise(2 if control else 3)
    together = sample(patched, POSITIVE, NEGATIVE, rows)
    monkeypatch.setattr(sd15.model, "memory_required", lambda *_, **__: 1e30)
    apart = sample(patched, POSITIVE, NEGATIVE, rows)
    assert [len(parts) for parts in seen] == [2, 1, 1]
    monkeypatch.undo()
    assert_same(apart, together, sample(sd15, POSITIVE, NEGATIVE, rows))


# Batches


@pytest.mark.parametrize(("control", "sets"), [(False, 2), (True, 3)], ids=str)
def test_sets_do_not_mix(sd15: ModelPatcher, joint: Weights, given: Weights, picture: Tensor, control: bool, sets: int) -> None:
    """N sets in one batch are N runs with the same noise."""
    frames = 2 if control else 3
    patched = share_attention(sd15, given, control=picture) if control else share_attention(sd15, joint)
    rows = noise(frames * sets)
    apart = torch.cat([sample(patched, POSITIVE, NEGATIVE, rows[n : n + frames]) for n in range(0, len(rows), frames)])
    assert_same(sample(patched, POSITIVE, NEGATIVE, rows), apart, sample(sd15, POSITIVE, NEGATIVE, rows))


@pytest.mark.parametrize(("frames", "rows"), [(3, 1), (3, 2), (3, 4), (2, 1), (2, 3)], ids=lambda value: str(value))
@pytest.mark.parametrize("prompts", [1, 2, 3])
def test_a_batch_that_is_no_multiple_of_the_frames(
    sd15: ModelPatcher, joint: Weights, given: Weights, picture: Tensor, frames: int, rows: int, prompts: int
) -> None:
    """However many prompts the host runs together: rows of different prompts are no set."""
    patched = share_attention(sd15, joint) if frames == 3 else share_attention(sd15, given, control=picture)
    positive = [entry for seed in range(max(1, prompts - 1)) for entry in prompt("sd15", 10 + seed)]
    with pytest.raises(DiaphaneError, match=f"multiple of {frames}.*Empty Layer Latent"):
        sample(patched, positive, NEGATIVE, noise(rows), cfg=1.0 if prompts == 1 else 3.0)


def test_layer_prompts_of_unequal_length(sd15: ModelPatcher, joint: Weights, reference: Shared, shared: Tensor) -> None:
    """By hand: every row attends to its own prompt, at its own length."""
    names = (FOREGROUND, BACKGROUND, BLENDED)
    prompts = {FOREGROUND: prompt("sd15", 5, 154), BACKGROUND: prompt("sd15", 6, 231)}
    texts = [*(prompts[name][0][0][0] for name in (FOREGROUND, BACKGROUND)), POSITIVE[0][0][0]]
    rows = noise(6)
    positive = layer_prompts(POSITIVE, names, prompts)
    actual = sample(share_attention(sd15, joint), positive, NEGATIVE, rows)
    units = [unit for (_, name), unit in reference.units.items() if name == "attn2"]

    def guided(x: Tensor, sigma: float) -> Tensor:
        away = denoised(reference.model, x, sigma, NEGATIVE)
        for unit in units:
            unit.texts = lambda row: texts[row % 3]
        towards = denoised(reference.model, x, sigma, POSITIVE)
        for unit in units:
            unit.texts = None
        return away + 3.0 * (towards - away)

    assert_same(actual, euler(sd15, guided, rows, 1), sample(reference.model, POSITIVE, NEGATIVE, rows))


@each_order
def test_size_that_halves_unevenly(sd15: ModelPatcher, given: Weights, order: str) -> None:
    """Latents of 18 x 14: maps of odd sizes on the way down. `order` turns the picture on its side."""
    size = (18, 14) if order == "before" else (14, 18)
    picture = torch.sigmoid(seeded_noise("uneven", (1, 3, size[0] * 8, size[1] * 8))).movedim(1, -1)
    rows = noise(2, size=size)
    expected = sample(Shared(sd15, given, picture=picture).model, POSITIVE, NEGATIVE, rows)
    actual = sample(share_attention(sd15, given, control=picture), POSITIVE, NEGATIVE, rows)
    assert_same(actual, expected, sample(sd15, POSITIVE, NEGATIVE, rows))


def test_inpainting_mask(sd15: ModelPatcher, joint: Weights, reference: Shared, shared: Tensor) -> None:
    """A noise mask (Set Latent Noise Mask) works as ever."""
    mask = F.pad(torch.ones(1, 1, 8, 16), (0, 0, 4, 4))
    actual = sample(share_attention(sd15, joint), POSITIVE, NEGATIVE, noise(3), noise_mask=mask)
    assert_same(actual, sample(reference.model, POSITIVE, NEGATIVE, noise(3), noise_mask=mask), shared)
