"""Attention sharing alone, with LoRAs and with other nodes that patch attention, each against its reference result (reference.py)."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

from typing import Any

import comfy.hooks
import comfy.model_management
import comfy.samplers
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_freelunch import FreeU, FreeU_V2
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from comfy_extras.nodes_sag import SelfAttentionGuidance, create_blur_map
from torch import Tensor

from dev.stand_ins.seeded import seeded_noise
from lib_layerdiffuse.comfyui.patch.attention_sharing import BLOCKS, share_attention
from tests.host.reference import assert_differ, assert_same, changed, denoised, euler, kohya, load_lora, noise, result_of, sample, scaled
from tests.host.shared_attention import Shared
from tests.host.sharing import (
    NEGATIVE,
    POSITIVE,
    Weights,
    _host,
    chained,
    each_order,
    given,
    joint,
    picture,
    plain,
    reference,
    sd15,
    shared,
    single,
)

__all__ = ["_host", "given", "joint", "picture", "plain", "reference", "sd15", "shared", "single"]


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


@pytest.mark.parametrize(("control", "weight"), [(False, -0.5), (True, -0.5), (True, 1.5)], ids=str)
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

    assert_same(actual, euler(sd15, guided, noise(3), 1), shared)


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
