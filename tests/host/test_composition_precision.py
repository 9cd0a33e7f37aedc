"""Base models in half and eighth precision, and under torch.compile."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.torch_helpers import torch_compile
from comfy_extras.nodes_torch_compile import skip_torch_compile_dict
from torch import Tensor

from dev.stand_ins.seeded import seeded_noise
from lib_layerdiffuse.comfyui.patch.attention_sharing import share_attention
from lib_layerdiffuse.comfyui.patch.deltas import apply_deltas
from tests.host.reference import (
    as_the_host_runs,
    assert_same,
    build_model,
    changed,
    delta_changes,
    noise,
    prompt,
    sample,
    stand_in_deltas,
    stand_in_sharing,
    watched,
)

Apply = Callable[..., ModelPatcher]

EXTRA = seeded_noise("extra", (1, 4, 16, 16))
PICTURE = torch.sigmoid(seeded_noise("picture", (1, 128, 128, 3)))
ROWS = {"lora": 1, "diff": 1, "extra": 1, "single": 1, "joint": 3, "given": 2}
each_kind = pytest.mark.parametrize("kind", [kind for kind in ROWS if kind != "joint"])


@pytest.fixture(autouse=True)
def _host() -> Iterator[None]:
    with as_the_host_runs():
        yield


def family_of(kind: str) -> str:
    return "sdxl" if kind in ("lora", "diff", "extra") else "sd15"


@pytest.fixture(scope="module")
def patches() -> dict[str, Apply]:
    """Kind of patch -> what applies it; the weights in half precision, as the released files have them."""
    deltas = {kind: half(stand_in_deltas(kind)) for kind in ("lora", "diff", "extra")}
    sharing = {"single": (1, False), "joint": (3, False), "given": (2, True)}
    shared = {kind: half(stand_in_sharing(frames, control=control)) for kind, (frames, control) in sharing.items()}

    def apply(kind: str) -> Apply:
        if kind in deltas:
            return lambda model, **options: apply_deltas(model, deltas[kind], extra=EXTRA if kind == "extra" else None, **options)
        return lambda model, **options: share_attention(model, shared[kind], control=PICTURE if kind == "given" else None, **options)

    return {kind: apply(kind) for kind in ROWS}


def half(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.to(torch.float16) for key, tensor in weights.items()}


def run(model: ModelPatcher, kind: str, **options: Any) -> Tensor:
    family = family_of(kind)
    return sample(model, prompt(family, 1), prompt(family, 2), noise(ROWS[kind]), **options)


# Precision

DTYPES = [torch.float16, torch.bfloat16, torch.float8_e4m3fn]
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@pytest.fixture(scope="module")
def bases() -> Iterator[Callable[[str, torch.dtype], tuple[ModelPatcher, ModelPatcher]]]:
    """(family, dtype) -> a model with weights in that precision, computed with in float32, and one with the same weights in float32."""
    made: dict[tuple[str, torch.dtype], tuple[ModelPatcher, ModelPatcher]] = {}

    def build(family: str, dtype: torch.dtype) -> tuple[ModelPatcher, ModelPatcher]:
        if (family, dtype) not in made:
            small, exact = build_model(family, dtype), build_model(family)
            exact.model.load_state_dict({key: tensor.float() for key, tensor in small.model.state_dict().items()})
            made[family, dtype] = small, exact
        return made[family, dtype]

    yield build


@each_dtype
@each_kind
def test_weights_that_are_not_merged_lose_nothing(
    bases: Callable[[str, torch.dtype], tuple[ModelPatcher, ModelPatcher]], patches: dict[str, Apply], kind: str, dtype: torch.dtype
) -> None:
    """Sharing and patches with a range run beside the layers, at the precision that the model computes with."""
    small, exact = bases(family_of(kind), dtype)
    with watched(small):
        assert next(small.model.diffusion_model.parameters()).dtype == dtype
        expected = run(patches[kind](exact, end=0.5), kind)
        assert_same(run(patches[kind](small, end=0.5), kind), expected, run(exact, kind))


@each_dtype
@pytest.mark.parametrize("kind", ["lora", "diff"])
def test_merged_weights_are_as_good_as_their_precision(
    bases: Callable[[str, torch.dtype], tuple[ModelPatcher, ModelPatcher]], patches: dict[str, Apply], kind: str, dtype: torch.dtype
) -> None:
    """Not much further off than weights merged and rounded by hand (the host rounds at random, up or down)."""
    small, exact = bases(family_of(kind), dtype)
    with watched(small):
        actual = run(patches[kind](small), kind, steps=1)
    merged = changed(exact, delta_changes(half(stand_in_deltas(kind))))
    expected = run(merged, kind, steps=1)
    merged.model.load_state_dict({key: tensor.to(dtype).float() for key, tensor in merged.model.state_dict().items()})
    rounded = run(merged, kind, steps=1)
    assert spread(actual - expected) < 3 * spread(rounded - expected)
    assert spread(actual - expected) < spread(expected - run(exact, kind, steps=1))


def spread(x: Tensor) -> Tensor:
    assert x.isfinite().all()
    return x.square().mean().sqrt()


@pytest.mark.parametrize("end", [1.0, 0.5])
@each_kind
def test_models_that_compute_in_low_precision(patches: dict[str, Apply], kind: str, end: float) -> None:
    """As on a graphics card: all activations are bfloat16, and nothing of ours stands out."""
    dtype = torch.bfloat16
    model = build_model(family_of(kind), dtype)
    model.model.manual_cast_dtype = None
    for module in model.model.modules():
        if hasattr(module, "comfy_cast_weights"):
            module.comfy_cast_weights = True
    dtypes: set[torch.dtype] = set()

    def watch(module: Any, args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            dtypes.add(output.dtype)

    with watched(model):
        patched = patches[kind](model, end=end)
        handles = [part.register_forward_hook(watch) for extra in patched.get_additional_models() for part in extra.model.modules()]
        handles += [part.register_forward_hook(watch) for part in model.model.diffusion_model.modules()]
        actual = run(patched, kind, steps=1)
        for handle in handles:
            handle.remove()
    assert dtypes == {dtype}
    exact = build_model(family_of(kind))
    exact.model.load_state_dict({key: tensor.float() for key, tensor in model.model.state_dict().items()})
    expected, plain = run(patches[kind](exact, end=end), kind, steps=1), run(exact, kind, steps=1)
    assert spread(actual - expected) < 0.3 * spread(expected - plain)


# torch.compile


def compiled(model: ModelPatcher) -> ModelPatcher:
    """What the node TorchCompileModel makes, but that its graphs are run as they are: a compiler would take minutes on a processor.

    As in the node, nothing that is found in `transformer_options` is looked at again once it is compiled.
    """
    result = model.clone()
    network = torch._dynamo.optimize(backend="eager", guard_filter_fn=skip_torch_compile_dict)(model.get_model_object("diffusion_model"))
    wrapper = torch_compile.apply_torch_compile_factory({"diffusion_model": network})
    result.add_wrapper_with_key("apply_model", torch_compile.COMPILE_KEY, wrapper)
    return result


@pytest.fixture(scope="module")
def compile_bases() -> dict[str, ModelPatcher]:
    return {family: build_model(family) for family in ("sd15", "sdxl")}


RANGES: dict[str, dict[str, float]] = {"whole": {}, "start": {"start": 0.5}, "end": {"end": 0.5}}


@pytest.mark.parametrize("part", [pytest.param(part, marks=[pytest.mark.full] if part != "whole" else []) for part in RANGES])
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.full] if kind != "given" else []) for kind in ROWS])
def test_compiled(compile_bases: dict[str, ModelPatcher], patches: dict[str, Apply], kind: str, part: str) -> None:
    """Also with a range, which sets in or ends between two steps of one compiled model."""
    base, options = compile_bases[family_of(kind)], RANGES[part]
    patched = patches[kind](base, **options)
    settings: dict[str, Any] = {"steps": 4, "cfg": 1.0}
    expected = run(patched, kind, **settings)
    wrong = run(base if not options else patches[kind](base), kind, **settings)
    torch._dynamo.reset()
    try:
        actual = run(compiled(patched), kind, **settings)
    finally:
        torch._dynamo.reset()
    assert 20 * (actual - expected).abs().max() < (wrong - expected).abs().max()
