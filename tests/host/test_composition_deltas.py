"""Delta patches and extra channels alone, with LoRAs and with other nodes, each against its reference result (reference.py)."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.hooks
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_freelunch import FreeU_V2
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from torch import Tensor

from dev.stand_ins.models import build_controlnet
from dev.stand_ins.seeded import seeded_noise
from tests.host.delta_cases import NEGATIVE, POSITIVE, Case, _host, cases, each_extra, each_kind, each_order, sdxl, vector
from tests.host.reference import (
    assert_same,
    changed,
    core,
    delta_changes,
    denoised,
    euler,
    kohya,
    load_lora,
    noise,
    result_of,
    sample,
    scaled,
)

__all__ = ["_host", "cases", "sdxl"]


# Deltas alone


@pytest.mark.parametrize("weight", [-0.5, 0.3])
@each_kind
def test_weight_is_linear_in_the_deltas(cases: Callable[[str], Case], sdxl: ModelPatcher, kind: str, weight: float) -> None:
    case = cases(kind)
    merged = changed(sdxl, delta_changes(case.weights, weight))
    expected = case.expected(model=merged)
    assert_same(sample(case.ours(weight=weight), POSITIVE, NEGATIVE, noise(1)), expected, sample(sdxl, POSITIVE, NEGATIVE, noise(1)))


@each_kind
def test_weight_0_is_the_base_model_to_the_bit(cases: Callable[[str], Case], sdxl: ModelPatcher, kind: str) -> None:
    plain = sample(sdxl, POSITIVE, NEGATIVE, noise(1))
    assert torch.equal(sample(cases(kind).ours(weight=0.0), POSITIVE, NEGATIVE, noise(1)), plain)


# LoRA


@each_order
@pytest.mark.parametrize("part", ["attention", "first conv"])
@each_kind
def test_lora_has_the_effect_of_merging_it(cases: Callable[[str], Case], kind: str, part: str, order: str) -> None:
    case = cases(kind)
    file, changes = kohya("sdxl", part)
    actual = sample(case.chained(lambda m: load_lora(m, file, 0.7), order), POSITIVE, NEGATIVE, noise(1))
    merged = changed(case.model, scaled(changes, 0.7))
    assert_same(actual, case.expected(model=merged), case.alone)


@each_order
@pytest.mark.parametrize("kind", ["lora", "switchable lora", "switchable extra"])
def test_bypass_lora_has_the_effect_of_merging_it(cases: Callable[[str], Case], kind: str, order: str) -> None:
    """The host's loader that runs a LoRA beside the layers puts itself on the very modules that carry our hooks."""
    load = getattr(comfy.sd, "load_bypass_lora_for_models", None)
    if load is None:
        pytest.skip("optional: this host has no bypass LoRA loader")
    case = cases(kind)
    file, changes = kohya("sdxl", "attention")
    actual = sample(case.chained(lambda m: load(m, None, file, 0.7, 0.0)[0], order), POSITIVE, NEGATIVE, noise(1))
    assert_same(actual, case.expected(model=changed(case.model, scaled(changes, 0.7))), case.alone)


@each_kind
def test_lora_as_a_hook_on_the_positive_prompt_alone(cases: Callable[[str], Case], sdxl: ModelPatcher, kind: str) -> None:
    """On the first convolution too, which stays as narrow as it was."""
    case = cases(kind)
    parts = [kohya("sdxl", part) for part in ("attention", "first conv")]
    hooks = comfy.hooks.create_hook_lora({**parts[0][0], **parts[1][0]}, 0.7, 0.0)
    actual = sample(case.ours(), comfy.hooks.set_hooks_for_conditioning(POSITIVE, hooks), NEGATIVE, noise(1))
    with_lora = changed(case.model, *(scaled(changes, 0.7) for _, changes in parts))
    more: dict[str, Any] = {} if case.extra is None else {"c_concat": case.extra}
    vectors = [{**more, "y": vector(sdxl, text)} for text in (POSITIVE, NEGATIVE)]

    def guided(x: Tensor, sigma: float) -> Tensor:
        away = denoised(case.model, x, sigma, NEGATIVE, **vectors[1])
        return away + 3.0 * (denoised(with_lora, x, sigma, POSITIVE, **vectors[0]) - away)

    assert_same(actual, euler(sdxl, guided, noise(1), 1), case.alone)


# Other nodes


@each_order
@pytest.mark.parametrize("kind", ["diff", "switchable diff", "extra", "two switchable extras"])
def test_free_u(cases: Callable[[str], Case], kind: str, order: str) -> None:
    case = cases(kind)
    node: Any = FreeU_V2

    def free(model: ModelPatcher) -> ModelPatcher:
        return result_of(node.execute(model, 1.3, 1.4, 0.9, 0.2))

    actual = sample(case.chained(free, order), POSITIVE, NEGATIVE, noise(1))
    assert_same(actual, case.expected(model=free(case.model)), case.alone)


@each_order
@pytest.mark.parametrize("kind", ["lora", "switchable lora", "extra", "two switchable extras"])
def test_perturbed_attention_guidance(cases: Callable[[str], Case], kind: str, order: str) -> None:
    """Its extra run of the positive prompt sees the extra channels as well."""
    case = cases(kind)
    node: Any = PerturbedAttentionGuidance

    def perturb(model: ModelPatcher) -> ModelPatcher:
        return result_of(node.execute(model, 3.0))

    actual = sample(case.chained(perturb, order), POSITIVE, NEGATIVE, noise(1))
    assert_same(actual, case.expected(model=perturb(case.model)), case.alone)


@each_extra
def test_controlnet(cases: Callable[[str], Case], kind: str) -> None:
    """The ControlNet gets the noise alone, not the extra channels."""
    case = cases(kind)
    image = torch.sigmoid(seeded_noise("edges", (1, 128, 128, 3)))
    apply = core.ControlNetApplyAdvanced().apply_controlnet
    positive, negative = apply(POSITIVE, NEGATIVE, build_controlnet("SDXL", 0), image, 1.0, 0.0, 1.0)
    assert_same(sample(case.ours(), positive, negative, noise(1)), case.expected(positive, negative), case.alone)


@each_order
def test_another_nodes_input_block_patch(cases: Callable[[str], Case], order: str) -> None:
    """One that replaces what comes out of block 0; the order of the nodes is the order of the patches."""
    case = cases("extra")

    def double(model: ModelPatcher) -> ModelPatcher:
        result = model.clone()
        result.set_model_input_block_patch(lambda h, options: h * 2 if options["block"] == ("input", 0) else h)
        return result

    assert case.extra is not None
    actual = sample(case.chained(double, order), POSITIVE, NEGATIVE, noise(1))
    if order == "before":  # doubled without the extra part: as if that were half as much
        halved = changed(case.model)
        halved.model.diffusion_model.input_blocks[0][0].weight[:, 4:] /= 2
        expected = case.expected(model=double(halved))
    else:
        expected = case.expected(model=double(case.model))
    assert_same(actual, expected, case.alone)


def test_the_options_of_a_run_are_not_written_into(cases: Callable[[str], Case]) -> None:
    """Another node's wrapper that is around ours finds its options as they were."""
    case = cases("extra")
    added: list[set[str]] = []

    def watch(executor: Any, x: Tensor, timesteps: Any, context: Any, y: Any, control: Any, options: dict[str, Any], **kwargs: Any) -> Any:
        before = set(options)
        result = executor(x, timesteps, context, y, control, options, **kwargs)
        added.append(set(options) - before)
        return result

    other = case.base.clone()
    other.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "other", watch)
    sample(case.ours(other), POSITIVE, NEGATIVE, noise(1))
    assert added and not any(key.startswith("diaphane") for keys in added for key in keys)
