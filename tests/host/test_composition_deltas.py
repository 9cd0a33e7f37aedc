"""Delta patches and extra channels together with the nodes that artists already use, each against its reference result (reference.py)."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
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
from lib_layerdiffuse.comfyui.patch.deltas import apply_deltas
from tests.host.reference import (
    HALF,
    Conditioning,
    area,
    as_the_host_runs,
    assert_differ,
    assert_same,
    build_model,
    changed,
    chunks_of,
    copy_of,
    core,
    crop,
    delta_changes,
    denoised,
    euler,
    kohya,
    load_lora,
    noise,
    prompt,
    result_of,
    sample,
    scaled,
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

    assert_same(actual, euler(sdxl, guided, noise(1), 2), case.alone)


def vector(sdxl: ModelPatcher, conditioning: Conditioning) -> Tensor:
    """SDXL's vector input for a 128 x 128 picture."""
    return sdxl.model.encode_adm(pooled_output=conditioning[0][1]["pooled_output"], width=128, height=128, device="cpu")


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
        assert [len(chunk) for chunk in seen] == [parts] * 2
        assert_same(actual, case.expected(cfg=cfg), sample(sdxl, POSITIVE, NEGATIVE, noise(1), cfg=cfg))


@each_extra
def test_little_memory(cases: Callable[[str], Case], sdxl: ModelPatcher, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts that do not fit into memory together run one after the other and give the same."""
    case = cases(kind)
    patched, seen = chunks_of(case.ours())
    monkeypatch.setattr(sdxl.model, "memory_required", lambda *_, **__: 1e30)
    actual = sample(patched, POSITIVE, NEGATIVE, noise(1))
    assert [len(chunk) for chunk in seen] == [1] * 4
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
