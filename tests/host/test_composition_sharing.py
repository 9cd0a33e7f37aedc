"""Attention sharing together with the nodes that artists already use, each against its reference result (reference.py)."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import comfy.hooks
import comfy.model_management
import comfy.samplers
import comfy.sd
import pytest
import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_freelunch import FreeU, FreeU_V2
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from comfy_extras.nodes_sag import SelfAttentionGuidance, create_blur_map
from torch import Tensor

from dev.stand_ins.models import build_controlnet
from dev.stand_ins.seeded import seeded_noise
from lib_layerdiffuse.comfyui.layers import BACKGROUND, BLENDED, FOREGROUND, layer_prompts
from lib_layerdiffuse.comfyui.patch.attention_sharing import BLOCKS, share_attention
from lib_layerdiffuse.errors import DiaphaneError
from tests.host.reference import (
    HALF,
    Shared,
    area,
    as_the_host_runs,
    assert_differ,
    assert_same,
    changed,
    chunks_of,
    core,
    crop,
    denoised,
    euler,
    kohya,
    load_lora,
    noise,
    prompt,
    result_of,
    sample,
    scaled,
    stand_in_sharing,
    watched,
)

Weights = dict[str, Tensor]
Apply = Callable[[ModelPatcher], ModelPatcher]

POSITIVE, NEGATIVE = prompt("sd15", 1), prompt("sd15", 2)
LEFT, RIGHT = (16, 8, 0, 0), HALF
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


# Sharing alone


def test_three_frames(sd15: ModelPatcher, joint: Weights, plain: Tensor, shared: Tensor) -> None:
    assert_same(sample(share_attention(sd15, joint), POSITIVE, NEGATIVE, noise(3)), shared, plain)


@pytest.mark.parametrize("weight", [-0.5, 1.0, 1.5])
def test_one_frame(sd15: ModelPatcher, single: Weights, plain: Tensor, weight: float) -> None:
    """Merged, with nothing hooked; and as a patch that can be switched off, with an end just short of 1."""
    expected = sample(Shared(sd15, single, weight=weight).model, POSITIVE, NEGATIVE, noise(3))
    merged, switchable = share_attention(sd15, single, weight=weight), share_attention(sd15, single, weight=weight, end=0.999)
    assert not merged.injections and switchable.injections
    for patched in (merged, switchable):
        assert_same(sample(patched, POSITIVE, NEGATIVE, noise(3)), expected, plain)


@pytest.mark.parametrize("sets", [1, 2])
def test_two_frames_and_a_given_layer(sd15: ModelPatcher, given: Weights, picture: Tensor, sets: int) -> None:
    rows = noise(2 * sets)
    expected = sample(Shared(sd15, given, picture=picture).model, POSITIVE, NEGATIVE, rows)
    actual = sample(share_attention(sd15, given, control=picture), POSITIVE, NEGATIVE, rows)
    assert_same(actual, expected, sample(sd15, POSITIVE, NEGATIVE, rows))
    blank = sample(share_attention(sd15, given, control=torch.full_like(picture, 0.5)), POSITIVE, NEGATIVE, rows)
    assert_differ(blank, expected)


@pytest.mark.parametrize("weight", [-0.5, 0.5, 1.5])
@pytest.mark.parametrize("control", [False, True], ids=["joint", "given"])
def test_weight_scales_all_that_is_added(
    sd15: ModelPatcher, joint: Weights, given: Weights, picture: Tensor, control: bool, weight: float
) -> None:
    weights, options, rows = (given, {"control": picture}, noise(2)) if control else (joint, {}, noise(3))
    expected = sample(Shared(sd15, weights, weight=weight, picture=picture if control else None).model, POSITIVE, NEGATIVE, rows)
    actual = sample(share_attention(sd15, weights, weight=weight, **options), POSITIVE, NEGATIVE, rows)
    assert_same(actual, expected, sample(sd15, POSITIVE, NEGATIVE, rows))
    assert_differ(actual, sample(share_attention(sd15, weights, **options), POSITIVE, NEGATIVE, rows))


def test_weight_0_is_the_base_model_to_the_bit(sd15: ModelPatcher, joint: Weights, plain: Tensor) -> None:
    assert torch.equal(sample(share_attention(sd15, joint, weight=0.0), POSITIVE, NEGATIVE, noise(3)), plain)


# LoRA


@each_order
@pytest.mark.parametrize("part", ["attention", "first conv"])
def test_lora_has_the_effect_of_merging_it(sd15: ModelPatcher, joint: Weights, shared: Tensor, part: str, order: str) -> None:
    file, changes = kohya("sd15", part)
    actual = sample(chained(sd15, joint, lambda m: load_lora(m, file, 0.7), order), POSITIVE, NEGATIVE, noise(3))
    merged = Shared(changed(sd15, scaled(changes, 0.7)), joint)
    assert_same(actual, sample(merged.model, POSITIVE, NEGATIVE, noise(3)), shared)


@each_order
def test_lora_beside_one_frame(sd15: ModelPatcher, single: Weights, plain: Tensor, order: str) -> None:
    """Both are merged with the same weights."""
    file, changes = kohya("sd15", "attention")
    actual = sample(chained(sd15, single, lambda m: load_lora(m, file, 0.7), order), POSITIVE, NEGATIVE, noise(3))
    merged = Shared(changed(sd15, scaled(changes, 0.7)), single)
    assert_same(actual, sample(merged.model, POSITIVE, NEGATIVE, noise(3)), plain)


@each_order
def test_bypass_lora_has_the_effect_of_merging_it(sd15: ModelPatcher, joint: Weights, shared: Tensor, order: str) -> None:
    """The host's loader that runs a LoRA beside the layers puts itself on the very modules that carry our hooks."""
    load = getattr(comfy.sd, "load_bypass_lora_for_models", None)
    if load is None:
        pytest.skip("optional: this host has no bypass LoRA loader")
    file, changes = kohya("sd15", "attention")
    actual = sample(chained(sd15, joint, lambda m: load(m, None, file, 0.7, 0.0)[0], order), POSITIVE, NEGATIVE, noise(3))
    merged = Shared(changed(sd15, scaled(changes, 0.7)), joint)
    assert_same(actual, sample(merged.model, POSITIVE, NEGATIVE, noise(3)), shared)


def test_lora_as_a_hook_on_the_positive_prompt_alone(sd15: ModelPatcher, joint: Weights, reference: Shared, shared: Tensor) -> None:
    """The host then runs both prompts one after the other and changes weights between them."""
    file, changes = kohya("sd15", "attention")
    positive = comfy.hooks.set_hooks_for_conditioning(POSITIVE, comfy.hooks.create_hook_lora(file, 0.7, 0.0))
    actual = sample(share_attention(sd15, joint), positive, NEGATIVE, noise(3))
    with_lora = Shared(changed(sd15, scaled(changes, 0.7)), joint).model

    def guided(x: Tensor, sigma: float) -> Tensor:
        away = denoised(reference.model, x, sigma, NEGATIVE)
        return away + 3.0 * (denoised(with_lora, x, sigma, POSITIVE) - away)

    assert_same(actual, euler(sd15, guided, noise(3), 2), shared)


# Other nodes that patch attention


def ip_tokens(part: int) -> tuple[Tensor, Tensor]:
    """Keys and values that a picture adds: for the prompt (0) and against it (1), as wide as any layer needs."""
    return seeded_noise(f"ip k {part}", (4, 128)), seeded_noise(f"ip v {part}", (4, 128))


def ip_adapter(model: ModelPatcher, weight: float = 0.8) -> ModelPatcher:
    """What IPAdapter nodes do: replace every cross attention by itself plus one over the tokens of a picture."""
    attend = comfy.ldm.modules.attention.optimized_attention

    def attention(q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
        out = attend(q, k, v, extra_options["n_heads"])
        parts = extra_options["cond_or_uncond"]
        rows = q.shape[0] // len(parts)
        tokens = [ip_tokens(part) for part in parts]
        ip_k, ip_v = (torch.cat([pair[i][None, :, : q.shape[-1]].repeat(rows, 1, 1) for pair in tokens]) for i in (0, 1))
        return out + attend(q, ip_k, ip_v, extra_options["n_heads"]) * weight

    result = model.clone()
    for kind, number in BLOCKS:
        result.set_model_attn2_replace(attention, kind, number)
    return result


@each_order
def test_ip_adapter(sd15: ModelPatcher, joint: Weights, shared: Tensor, order: str) -> None:
    written_out = Shared(sd15, joint)
    for (_, name), unit in written_out.units.items():
        if name == "attn2":

            def more(row: int, q: Tensor, options: dict[str, Any], unit: Any = unit) -> Tensor:
                k, v = ip_tokens(options["cond_or_uncond"][row // 3])
                return 0.8 * unit.attend(q, k[:, : q.shape[-1]], v[:, : q.shape[-1]])[0]

            unit.more = more
    actual = sample(chained(sd15, joint, ip_adapter, order), POSITIVE, NEGATIVE, noise(3))
    assert_same(actual, sample(written_out.model, POSITIVE, NEGATIVE, noise(3)), shared)


@each_order
def test_perturbed_attention_guidance(sd15: ModelPatcher, joint: Weights, reference: Shared, shared: Tensor, order: str) -> None:
    unit = reference.units["middle_block", "attn1"]

    def by_hand(args: dict[str, Any]) -> Tensor:
        unit.perturbed = True
        (perturbed,) = comfy.samplers.calc_cond_batch(args["model"], [args["cond"]], args["input"], args["sigma"], args["model_options"])
        unit.perturbed = False
        return args["denoised"] + 3.0 * (args["cond_denoised"] - perturbed)

    expected = reference.model.clone()
    expected.set_model_sampler_post_cfg_function(by_hand)
    node: Any = PerturbedAttentionGuidance
    actual = sample(chained(sd15, joint, lambda m: result_of(node.execute(m, 3.0)), order), POSITIVE, NEGATIVE, noise(3))
    assert_same(actual, sample(expected, POSITIVE, NEGATIVE, noise(3)), shared)


@each_order
def test_self_attention_guidance(sd15: ModelPatcher, joint: Weights, reference: Shared, shared: Tensor, order: str) -> None:
    unit = reference.units["middle_block", "attn1"]

    def by_hand(args: dict[str, Any]) -> Tensor:
        first = 3 * unit.parts.index(1)
        away, x = args["uncond_denoised"], args["input"]
        blurred = create_blur_map(away, torch.cat(unit.seen[first : first + 3]), 2.0, 1.0)
        changed_x = blurred + x - away
        (found,) = comfy.samplers.calc_cond_batch(args["model"], [args["uncond"]], changed_x, args["sigma"], args["model_options"])
        return args["denoised"] + 0.5 * (blurred - found)

    expected = reference.model.clone()
    expected.set_model_sampler_post_cfg_function(by_hand)
    node: Any = SelfAttentionGuidance
    actual = sample(chained(sd15, joint, lambda m: result_of(node.execute(m, 0.5, 2.0)), order), POSITIVE, NEGATIVE, noise(3))
    assert_same(actual, sample(expected, POSITIVE, NEGATIVE, noise(3)), shared)


@each_order
@pytest.mark.parametrize("node", [FreeU, FreeU_V2])
def test_free_u(sd15: ModelPatcher, joint: Weights, reference: Shared, shared: Tensor, node: Any, order: str) -> None:
    def free(model: ModelPatcher) -> ModelPatcher:
        return result_of(node.execute(model, 1.3, 1.4, 0.9, 0.2))

    actual = sample(chained(sd15, joint, free, order), POSITIVE, NEGATIVE, noise(3))
    assert_same(actual, sample(free(reference.model), POSITIVE, NEGATIVE, noise(3)), shared)


@each_order
def test_patches_of_the_text(sd15: ModelPatcher, joint: Weights, reference: Shared, shared: Tensor, order: str) -> None:
    """A patch that changes what cross attention looks at: keys and values each in their own way."""

    def other_text(model: ModelPatcher) -> ModelPatcher:
        result = model.clone()
        result.set_model_attn2_patch(lambda n, context, value, _: (n, context.flip(1), value * 0.5))
        return result

    actual = sample(chained(sd15, joint, other_text, order), POSITIVE, NEGATIVE, noise(3))
    assert_same(actual, sample(other_text(reference.model), POSITIVE, NEGATIVE, noise(3)), shared)


@each_order
def test_patches_that_let_self_attention_see_more(
    sd15: ModelPatcher, joint: Weights, reference: Shared, shared: Tensor, order: str
) -> None:
    """As reference-only nodes do."""

    def see_more(model: ModelPatcher) -> ModelPatcher:
        result = model.clone()

        def patch(n: Tensor, context: Tensor, value: Tensor, _: Any) -> tuple[Tensor, Tensor, Tensor]:
            return n, torch.cat([context, context.flip(2)], dim=1), torch.cat([value, value.flip(2)], dim=1)

        result.set_model_attn1_patch(patch)
        return result

    actual = sample(chained(sd15, joint, see_more, order), POSITIVE, NEGATIVE, noise(3))
    assert_same(actual, sample(see_more(reference.model), POSITIVE, NEGATIVE, noise(3)), shared)


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
    assert seen == [[0, 0]] * 2, "the host was to run both areas in one batch"
    written_out = Shared(sd15, given)

    def by_hand(x: Tensor, sigma: float) -> Tensor:
        result = torch.zeros_like(x)
        for part, text in texts.items():
            written_out.steer([crop(picture.movedim(-1, 1), part, 8).movedim(1, -1)])
            crop(result, part).copy_(denoised(written_out.model, crop(x, part), sigma, text))
        return result

    swapped = sample(patched, [*area(texts[LEFT], RIGHT), *area(texts[RIGHT], LEFT)], None, noise(2), cfg=1.0)
    assert_same(actual, euler(sd15, by_hand, noise(2), 2), swapped)


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
    assert_same(actual, euler(sd15, guided, noise(3), 2), plain)


def test_cfg_1_runs_the_positive_prompt_alone(sd15: ModelPatcher, joint: Weights, reference: Shared) -> None:
    patched, seen = chunks_of(share_attention(sd15, joint))
    actual = sample(patched, POSITIVE, NEGATIVE, noise(3), cfg=1.0)
    assert seen == [[0]] * 2
    expected = euler(sd15, lambda x, sigma: denoised(reference.model, x, sigma, POSITIVE), noise(3), 2)
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
    assert [len(parts) for parts in seen] == [2, 2, 1, 1, 1, 1]
    monkeypatch.undo()
    assert_same(apart, together, sample(sd15, POSITIVE, NEGATIVE, rows))


# Batches


@pytest.mark.parametrize("sets", [1, 2, 5])
@pytest.mark.parametrize("control", [False, True], ids=["joint", "given"])
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

    assert_same(actual, euler(sd15, guided, rows, 2), sample(reference.model, POSITIVE, NEGATIVE, rows))


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
