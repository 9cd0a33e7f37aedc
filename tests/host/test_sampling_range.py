"""start and end of every kind of patch: which steps it takes part in, in the host's real samplers.

With the "normal" schedule and four steps, two lie before the middle of the sampling and two after it.
"""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP
from comfy_extras.nodes_custom_sampler import BasicScheduler, KSamplerSelect, SamplerCustom
from comfy_extras.nodes_model_advanced import ModelSamplingContinuousEDM, ModelSamplingDiscrete, RescaleCFG
from torch import Tensor

from dev.stand_ins.models import build_model as build_stand_in
from dev.stand_ins.seeded import seeded_noise
from dev.stand_ins.weights import flux_lora
from lib_layerdiffuse.comfyui.patch.attention_sharing import share_attention
from lib_layerdiffuse.comfyui.patch.deltas import apply_deltas
from lib_layerdiffuse.comfyui.patch.lora import apply_lora
from lib_layerdiffuse.errors import DiaphaneError
from tests.host.reference import (
    Conditioning,
    as_the_host_runs,
    assert_closer,
    assert_same,
    build_model,
    changed,
    core,
    delta_changes,
    noise,
    prompt,
    result_of,
    sample,
    stand_in_deltas,
    stand_in_sharing,
    switching,
    watched,
    with_concat,
)
from tests.host.shared_attention import Shared

STEPS = 4


@pytest.fixture(autouse=True)
def _host() -> Iterator[None]:
    with as_the_host_runs():
        yield


class Case:
    """One kind of patch on its model. The reference is None where another test has shown what the whole range computes."""

    def __init__(self, base: ModelPatcher, prompts: tuple[Conditioning, Conditioning], rows: Tensor, apply: Callable[..., ModelPatcher]):
        self.base = base
        self.positive, self.negative = prompts
        self.rows = rows
        self.apply = apply
        self.cfg = 1.0 if rows.shape[1] == 16 else 3.0

    def ours(self, model: ModelPatcher | None = None, **options: Any) -> ModelPatcher:
        return self.apply(model or self.base, **options)

    def sample(self, model: ModelPatcher, **options: Any) -> Tensor:
        return sample(model, self.positive, self.negative, self.rows, **{"steps": STEPS, "cfg": self.cfg, **options})

    def stages(self, models: list[ModelPatcher], at: list[int], scheduler: str = "normal") -> Tensor:
        """KSamplerAdvanced nodes in a row, each handing its leftover noise to the next."""
        latent: dict[str, Any] = {"samples": torch.zeros_like(self.rows)}
        bounds = [0, *at, 10000]
        for n, model in enumerate(models):
            more = "enable" if n + 1 < len(models) else "disable"
            settings = (self.cfg, "euler", scheduler, self.positive, self.negative, latent, bounds[n], bounds[n + 1], more)
            (latent,) = core.KSamplerAdvanced().sample(model, "disable" if n else "enable", 5, STEPS, *settings)
        return latent["samples"]

    def node(self, model: ModelPatcher, scheduler: str = "normal") -> Tensor:
        """The KSampler node."""
        latent = {"samples": torch.zeros_like(self.rows)}
        settings = (5, STEPS, self.cfg, "euler", scheduler, self.positive, self.negative, latent)
        return core.KSampler().sample(model, *settings)[0]["samples"]


def unet_prompts(family: str) -> tuple[Conditioning, Conditioning]:
    return prompt(family, 1), prompt(family, 2)


def flux_prompts() -> tuple[Conditioning, Conditioning]:
    settings = {"pooled_output": seeded_noise("pooled", (1, 32)), "guidance": 3.5}
    return [[seeded_noise("text", (1, 20, 64)), settings]], [[seeded_noise("other text", (1, 20, 64)), settings]]


# "joint" is for what "given" does not have; else it is the same with a frame more.
KINDS = ["lora", "diff", "extra", "two extras", "single", "given", "flux lora"]
FRAMES = {"single": 1, "joint": 3, "given": 2}
each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def cases() -> Iterator[Callable[[str], Case]]:
    extras = {"extra": seeded_noise("extra", (1, 4, 16, 16)), "two extras": seeded_noise("extras", (1, 8, 16, 16))}
    picture = torch.sigmoid(seeded_noise("picture", (1, 128, 128, 3)))
    with watched(build_model("sd15")) as sd15, watched(build_model("sdxl")) as sdxl, watched(build_stand_in("Flux", 0)) as flux:
        made: dict[str, Case] = {}

        def build(kind: str) -> Case:
            if kind in FRAMES:
                weights = stand_in_sharing(FRAMES[kind], control=kind == "given")
                control = picture if kind == "given" else None
                rows = noise(FRAMES[kind])
                return Case(sd15, unet_prompts("sd15"), rows, lambda m, **o: share_attention(m, weights, control=control, **o))
            if kind == "flux lora":
                lora = {key: tensor * 4 for key, tensor in flux_lora("range").items()}
                return Case(flux, flux_prompts(), noise(1, channels=16), lambda m, **o: apply_lora(m, lora, **o))
            deltas = stand_in_deltas(kind)
            return Case(sdxl, unet_prompts("sdxl"), noise(1), lambda m, **o: apply_deltas(m, deltas, extra=extras.get(kind), **o))

        def case(kind: str) -> Case:
            if kind not in made:
                made[kind] = build(kind)
            return made[kind]

        yield case


# Split in two


@pytest.mark.parametrize(("kind", "scheduler"), [*((kind, "normal") for kind in KINDS), ("extra", "karras"), ("given", "karras")])
def test_end_equals_two_samplers(cases: Callable[[str], Case], kind: str, scheduler: str) -> None:
    """Ours up to a step, then the plain model."""
    case = cases(kind)
    split = steps_before(case.base, 0.5, scheduler)
    assert 0 < split < STEPS
    expected = case.stages([case.ours(), case.base], [split], scheduler)
    actual = case.node(case.ours(end=0.5), scheduler)
    assert_same(actual, expected, case.node(case.base, scheduler))
    assert_closer(actual, expected, case.node(case.ours(), scheduler))


@each_kind
def test_start_equals_two_samplers(cases: Callable[[str], Case], kind: str) -> None:
    """The plain model up to a step, then ours."""
    case = cases(kind)
    split = steps_before(case.base, 0.5, "normal")
    actual = case.node(case.ours(start=0.5))
    assert_closer(actual, case.stages([case.base, case.ours()], [split]), case.node(case.base))


@each_kind
def test_start_and_end_equal_three_samplers(cases: Callable[[str], Case], kind: str) -> None:
    case = cases(kind)
    first, last = (steps_before(case.base, share, "normal") for share in (0.2, 0.6))
    assert 0 < first < last < STEPS
    expected = case.stages([case.base, case.ours(weight=0.7), case.base], [first, last])
    assert_closer(case.node(case.ours(start=0.2, end=0.6, weight=0.7)), expected, case.node(case.base))


def steps_before(model: ModelPatcher, share: float, scheduler: str) -> int:
    """How many steps lie in the first part of the sampling."""
    sampling = model.get_model_object("model_sampling")
    sigmas = result_of(BasicScheduler.execute(model, scheduler, STEPS, 1.0))[:-1]
    return int((sigmas > sampling.percent_to_sigma(share)).sum())


@each_kind
def test_two_halves_are_the_whole(cases: Callable[[str], Case], kind: str) -> None:
    """With five steps one of them lies exactly in the middle; it belongs to one half only."""
    case = cases(kind)
    halves = case.ours(case.ours(end=0.5), start=0.5)
    assert_same(*(case.sample(model, steps=5) for model in (halves, case.ours(), case.base)))


# The whole and nothing


@each_kind
def test_the_whole_range_costs_nothing(cases: Callable[[str], Case], kind: str) -> None:
    """start 0 and end 1 are the same as no range, to the bit, and nothing is called at every step."""
    case = cases(kind)
    without, with_range = case.ours(), case.ours(start=0.0, end=1.0)
    assert torch.equal(case.sample(with_range, steps=2), case.sample(without, steps=2))
    assert not with_range.get_all_callbacks(CallbacksMP.ON_PREPARE_STATE)
    assert bool(with_range.injections) == (kind == "given")
    assert bool(with_range.additional_models) == (kind in FRAMES)
    assert case.ours(end=0.5).get_all_callbacks(CallbacksMP.ON_PREPARE_STATE)


@pytest.mark.parametrize("at", [0.0, 0.5, 1.0])
@each_kind
def test_an_empty_range_is_the_base_model_to_the_bit(cases: Callable[[str], Case], kind: str, at: float) -> None:
    case = cases(kind)
    patched = case.ours(start=at, end=at)
    assert not patched.injections and not patched.additional_models and not patched.patches
    assert torch.equal(case.sample(patched, steps=1), case.sample(case.base, steps=1))


@each_kind
def test_a_range_that_no_step_falls_into_is_the_base_model_to_the_bit(cases: Callable[[str], Case], kind: str) -> None:
    """Image to image begins in the middle: a patch for the beginning never sets in."""
    case = cases(kind)
    patched = case.ours(end=0.3)
    assert torch.equal(case.sample(patched, denoise=0.5), case.sample(case.base, denoise=0.5))


@pytest.mark.parametrize(("start", "end"), [(-0.1, 1.0), (0.0, 1.1), (0.6, 0.4), (float("nan"), 1.0)])
def test_impossible_ranges(cases: Callable[[str], Case], start: float, end: float) -> None:
    for kind in ("lora", "joint", "flux lora"):
        with pytest.raises(DiaphaneError, match="between 0 and 1"):
            cases(kind).ours(start=start, end=end)


def test_one_run_leaves_nothing_to_the_next(cases: Callable[[str], Case]) -> None:
    """A range that has ended is open again in the next run, and clones that share it do not disturb each other."""
    for kind in KINDS:
        case = cases(kind)
        patched = case.ours(end=0.5)
        first = case.sample(patched, steps=2)
        clone = patched.clone()
        case.sample(clone, steps=2, denoise=0.3)
        assert torch.equal(case.sample(patched, steps=2), first), kind
        assert torch.equal(case.sample(clone, steps=2), first), kind


# Samplers and schedules


@pytest.fixture(scope="module")
def written_out(cases: Callable[[str], Case]) -> dict[str, ModelPatcher]:
    """Reference models of the whole range."""
    with as_the_host_runs():
        joint = Shared(cases("joint").base, stand_in_sharing(3, control=False)).model
        return {"joint": joint, "diff": changed(cases("diff").base, delta_changes(stand_in_deltas("diff")))}


@pytest.mark.parametrize(
    ("kind", "sampler"),
    [
        *(("diff", sampler) for sampler in ("euler_ancestral", "dpmpp_2m", "uni_pc", "heun", "dpmpp_sde", "ddim", "lcm")),
        *(("joint", sampler) for sampler in ("dpmpp_2m", "dpmpp_sde")),
    ],
)
def test_samplers(cases: Callable[[str], Case], written_out: dict[str, ModelPatcher], kind: str, sampler: str) -> None:
    """Samplers with noise, with memory and with steps between the steps: the model is chosen by sigma at every call."""
    case = cases(kind)
    start, end = (case.base.get_model_object("model_sampling").percent_to_sigma(share) for share in (0.2, 0.7))
    by_hand = switching(case.base, written_out[kind], lambda sigma: end < sigma <= start)
    actual = case.sample(case.ours(start=0.2, end=0.7), sampler=sampler)
    assert_same(actual, case.sample(by_hand, sampler=sampler), case.sample(case.base, sampler=sampler), share=5e-3)


@pytest.mark.parametrize("kind", ["diff", "joint"])
def test_a_schedule_that_comes_after_ours(cases: Callable[[str], Case], written_out: dict[str, ModelPatcher], kind: str) -> None:
    """Half of the sampling is half of the new schedule, whose sigmas go from 1000 to 0.5; the model's own would end sooner, at 1.6."""
    case = cases(kind)
    node: Any = ModelSamplingContinuousEDM

    def schedule(model: ModelPatcher) -> ModelPatcher:
        return result_of(node().patch(model, "eps", 1000.0, 0.5))

    half = (1000.0 * 0.5) ** 0.5
    by_hand = schedule(switching(case.base, written_out[kind], lambda sigma: sigma > half))
    # A model that knows the schedule too, or its noise would be scaled differently.
    written_out[kind].model.model_sampling, kept = by_hand.get_model_object("model_sampling"), written_out[kind].model.model_sampling
    try:
        expected = case.sample(by_hand, steps=STEPS, scheduler="karras")
    finally:
        written_out[kind].model.model_sampling = kept
    steps = result_of(BasicScheduler.execute(by_hand, "karras", STEPS, 1.0))[:-1]
    actual = case.sample(schedule(case.ours(end=0.5)), steps=STEPS, scheduler="karras")
    assert_same(actual, expected, case.sample(schedule(case.base), steps=STEPS, scheduler="karras"), share=5e-3)
    own = case.base.get_model_object("model_sampling").percent_to_sigma(0.5)
    assert [int((steps > sigma).sum()) for sigma in (half, own)] == [2, 3], "the two schedules were to disagree"


@each_kind
def test_other_model_nodes_after_ours(cases: Callable[[str], Case], kind: str) -> None:
    """ModelSamplingDiscrete (v-prediction, zero terminal SNR) and RescaleCFG, through the nodes for custom sampling."""
    case = cases(kind)
    if kind == "flux lora":
        pytest.skip("optional: these nodes are for UNets")
    custom: Any = SamplerCustom
    discrete: Any = ModelSamplingDiscrete
    rescale: Any = RescaleCFG

    def settled(model: ModelPatcher) -> ModelPatcher:
        return result_of(rescale().patch(result_of(discrete().patch(model, "v_prediction", True)), 0.7))

    sampler = result_of(KSamplerSelect.execute("euler"))

    def run(model: ModelPatcher, latent: Tensor, sigmas: Tensor, add_noise: bool) -> Tensor:
        output = custom.execute(model, add_noise, 5, case.cfg, case.positive, case.negative, sampler, sigmas, {"samples": latent})
        return result_of(output)["samples"]

    base = settled(case.base)
    sigmas = result_of(BasicScheduler.execute(base, "normal", STEPS, 1.0))
    split = steps_before(base, 0.5, "normal")
    assert 0 < split < STEPS
    half_way = run(settled(case.ours()), torch.zeros_like(case.rows), sigmas[: split + 1], True)
    expected = run(base, half_way, sigmas[split:], False)
    actual = run(settled(case.ours(end=0.5)), torch.zeros_like(case.rows), sigmas, True)
    assert_same(actual, expected, run(base, torch.zeros_like(case.rows), sigmas, True), share=5e-3)


def test_extra_channels_and_deltas_end_together(cases: Callable[[str], Case]) -> None:
    """By hand: a widened model for the first half, the plain one for the rest."""
    case = cases("extra")
    extra = seeded_noise("extra", (1, 4, 16, 16))
    widened = changed(case.base, delta_changes(stand_in_deltas("extra")))
    half = case.base.get_model_object("model_sampling").percent_to_sigma(0.5)

    def step(apply_model: Callable[..., Tensor], args: dict[str, Any]) -> Tensor:
        conditions = dict(args["c"])
        concat = conditions.pop("c_concat")
        if float(args["timestep"].max()) > half:
            return widened.model.apply_model(args["input"], args["timestep"], c_concat=concat, **conditions)
        return apply_model(args["input"], args["timestep"], **conditions)

    by_hand = case.base.clone()
    by_hand.set_model_unet_function_wrapper(step)
    seen = (with_concat(case.positive, extra), with_concat(case.negative, extra))
    expected = sample(by_hand, *seen, case.rows, steps=STEPS)
    assert_same(case.sample(case.ours(end=0.5)), expected, case.sample(case.base))
