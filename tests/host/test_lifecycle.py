"""Patched models come and go: switched, cloned, unloaded, interrupted, collected. Nothing may stay behind in the base model.

Results are compared to the bit with those of a fresh patch: on one machine the host computes the same twice.
"""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import comfy.model_management as memory
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from lib_layerdiffuse.comfyui.patch.attention_sharing import share_attention
from lib_layerdiffuse.comfyui.patch.deltas import apply_deltas
from lib_layerdiffuse.comfyui.patch.lora import apply_lora
from lib_layerdiffuse.errors import DiaphaneError
from tests.host.reference import assert_differ, assert_no_hooks, assert_same, kohya, load_lora, noise, prompt, sample
from tests.host.shared_attention import Shared
from tests.host.studio import EXTRAS, KINDS, PICTURE, SHARED, Kind, Studio, _host, studio

__all__ = ["_host", "studio"]

each_kind = pytest.mark.parametrize("kind", KINDS)


# Switching


@each_kind
def test_base_and_patched_take_turns(studio: Studio, kind: Kind) -> None:
    patched, expected, plain = studio.patch(kind), studio.fresh(kind), studio.plain(kind)
    for model, result in [(patched, expected), (studio.base(kind), plain)] * 2:
        assert torch.equal(studio.sample(model), result)
        if model is not patched:
            assert_no_hooks(model)
    studio.check_base(kind)


def test_all_families_and_patches_take_turns(studio: Studio) -> None:
    """Every patch of every family, bases in between, there and back, nothing unloaded by hand."""
    fresh = {kind: studio.fresh(kind) for kind in KINDS}
    patched = {kind: studio.patch(kind) for kind in KINDS}
    for kind in [*KINDS, *reversed(KINDS)]:
        assert torch.equal(studio.sample(patched[kind]), fresh[kind]), kind
    for kind in KINDS[::2]:
        assert torch.equal(studio.sample(studio.base(kind)), studio.plain(kind)), kind
        assert torch.equal(studio.sample(patched[kind]), fresh[kind]), kind
    for kind in ("lora", "joint", "flux lora"):
        studio.check_base(kind)


@each_kind
def test_unloading_and_running_again(studio: Studio, kind: Kind) -> None:
    patched, expected = studio.patch(kind), studio.fresh(kind)
    for _ in range(2):
        assert torch.equal(studio.sample(patched), expected)
        memory.unload_all_models()
        assert_no_hooks(patched)
    studio.check_base(kind)


@each_kind
def test_a_second_run_without_unloading(studio: Studio, kind: Kind) -> None:
    """And at another size, as in a hires pass, and back."""
    patched = studio.patch(kind)
    rows = noise(6 if studio.base(kind) is studio.bases["sd15"] else 1, size=(24, 20), channels=16 if "flux" in kind else 4)
    settings = {"steps": 1, "cfg": 1.0 if "flux" in kind else 3.0}
    large = sample(studio.patch(kind), *studio.prompts(patched), rows, **settings)
    for _ in range(2):
        assert torch.equal(studio.sample(patched), studio.fresh(kind))
        assert torch.equal(sample(patched, *studio.prompts(patched), rows, **settings), large)


# Clones


@each_kind
def test_clone_of_clone(studio: Studio, kind: Kind) -> None:
    """Cloned before and while loaded, run in any order."""
    patched, expected = studio.patch(kind), studio.fresh(kind)
    early = patched.clone().clone()
    assert torch.equal(studio.sample(early), expected)
    late = early.clone().clone()
    for model in (late, patched, early, late):
        assert torch.equal(studio.sample(model), expected)
    studio.check_base(kind)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "flux" not in kind])
def test_a_node_added_to_a_loaded_model(studio: Studio, kind: Kind) -> None:
    """A LoRA node after ours, run while ours is loaded, gives what it gives on a fresh one; ours goes on as before."""
    file, _ = kohya("sd15" if kind in SHARED else "sdxl", "attention")
    expected = studio.sample(load_lora(studio.patch(kind), file))
    memory.unload_all_models()
    patched = studio.patch(kind)
    assert torch.equal(studio.sample(patched), studio.fresh(kind))
    assert torch.equal(studio.sample(load_lora(patched, file)), expected)
    assert torch.equal(studio.sample(patched), studio.fresh(kind))
    studio.check_base(kind)


@pytest.mark.parametrize(("first", "second"), [("switchable lora", "switchable extras"), ("diff", "lora"), ("joint", "joint")])
def test_two_of_our_nodes_in_one_chain(studio: Studio, first: Kind, second: Kind) -> None:
    """The second one added while the first is loaded; then the first alone again. (Joint after Joint: whatever it gives, it stays.)"""
    both = studio.sample(studio.patch(second, studio.patch(first)))
    memory.unload_all_models()
    one = studio.patch(first)
    assert torch.equal(studio.sample(one), studio.fresh(first))
    two = studio.patch(second, one)
    for _ in range(2):
        assert torch.equal(studio.sample(two), both)
        assert torch.equal(studio.sample(one), studio.fresh(first))
    assert_differ(both, studio.fresh(first))
    studio.check_base(first)


@each_kind
def test_a_clone_that_goes_away_while_ours_is_sampled(studio: Studio, kind: Kind) -> None:
    """The host ejects a patcher when it is collected, and a clone of a loaded one believes to be injected."""
    patched = studio.patch(kind)
    expected = studio.sample(patched, steps=3)

    def drop_a_clone(*_: Any) -> None:
        patched.clone()
        gc.collect()

    assert torch.equal(studio.sample(patched, steps=3, callback=drop_a_clone), expected)


# What goes wrong


@each_kind
def test_interrupted_in_the_middle(studio: Studio, kind: Kind) -> None:
    """And at once run again, first the base, then the same patch."""
    patched, expected = studio.patch(kind), studio.fresh(kind)
    for then_base in (True, False):
        steps_seen: list[int] = []

        def interrupt(step: int, *_: Any, seen: list[int] = steps_seen) -> None:
            seen.append(step)
            if step == 1:
                raise memory.InterruptProcessingException

        with pytest.raises(memory.InterruptProcessingException):
            studio.sample(patched, steps=3, callback=interrupt)
        assert steps_seen == [0, 1]
        if then_base:
            assert torch.equal(studio.sample(studio.base(kind)), studio.plain(kind))
            assert_no_hooks(studio.base(kind))
        assert torch.equal(studio.sample(patched), expected)
    studio.check_base(kind)


@each_kind
def test_a_range_is_open_again_after_an_interruption(studio: Studio, kind: Kind) -> None:
    """Interrupted after the range has ended."""
    file = studio.files[kind.removeprefix("switchable ")]
    base = studio.base(kind)
    if kind in SHARED:
        patched = share_attention(base, file, control=PICTURE if kind == "given" else None, end=0.3)
    elif "flux" in kind:
        patched = apply_lora(base, file, end=0.3)
    else:
        patched = apply_deltas(base, file, extra=EXTRAS if "extra" in kind else None, end=0.3)
    expected = studio.sample(patched, steps=2)

    def interrupt(step: int, *_: Any) -> None:
        if step == 2:
            raise memory.InterruptProcessingException

    with pytest.raises(memory.InterruptProcessingException):
        studio.sample(patched, steps=4, callback=interrupt)
    assert torch.equal(studio.sample(patched, steps=2), expected)


@pytest.mark.parametrize("kind", ["joint", "given"])
def test_a_run_after_an_error_in_the_middle_of_the_model(studio: Studio, kind: Kind) -> None:
    """A batch of the wrong size is refused inside the first attention module."""
    patched = studio.patch(kind)
    for _ in range(2):
        with pytest.raises(DiaphaneError, match="Empty Layer Latent"):
            studio.sample(patched, rows=5, cfg=1.0)
        assert torch.equal(studio.sample(patched), studio.fresh(kind))
    with pytest.raises(DiaphaneError, match="Empty Layer Latent"):
        studio.sample(patched, rows=5, cfg=1.0)
    studio.check_base(kind)


@each_kind
def test_a_run_after_another_nodes_error(studio: Studio, kind: Kind) -> None:
    """A patch of another node fails at the last layer of the model, so that all of ours have been called."""
    patched = studio.patch(kind)
    broken = patched.clone()

    def fail(apply_model: Callable[..., Tensor], args: dict[str, Any]) -> Tensor:
        apply_model(args["input"], args["timestep"], **args["c"])
        raise RuntimeError("another node")

    broken.set_model_unet_function_wrapper(fail)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="another node"):
            studio.sample(broken)
        assert torch.equal(studio.sample(patched), studio.fresh(kind))
    with pytest.raises(RuntimeError, match="another node"):
        studio.sample(broken)
    studio.check_base(kind)


# What is released


def networks_of(patched: ModelPatcher) -> list[weakref.ref[Any]]:
    return [weakref.ref(model.model) for model in patched.get_additional_models()]


@each_kind
def test_collected_patchers_take_everything_with_them(studio: Studio, kind: Kind) -> None:
    """Loaded or not: hooks, additional models and the models they hold are gone with the last clone."""
    for loaded in (False, True):
        patched = studio.patch(kind)
        networks = networks_of(patched)
        assert bool(networks) == (kind in SHARED or "switchable" in kind)
        if loaded:
            studio.sample(patched)
        clone = patched.clone()
        del patched
        gc.collect()
        assert all(network() is not None for network in networks)
        assert torch.equal(studio.sample(clone), studio.fresh(kind))
        del clone
        gc.collect()
        assert_no_hooks(studio.base(kind))
        assert not any(network() for network in networks), "additional models have to go with the patched model"
    memory.cleanup_models_gc()
    assert all(loaded.model is not None for loaded in memory.current_loaded_models)
    studio.check_base(kind)


@each_kind
def test_collected_in_a_cycle(studio: Studio, kind: Kind) -> None:
    """Other nodes hang functions on a model that know it, and tracebacks hold it: then Python's cycle collector ends it, loaded."""
    expected, patched = studio.fresh(kind), studio.patch(kind)
    networks = networks_of(patched)

    def step(apply_model: Callable[..., Tensor], args: dict[str, Any], known: ModelPatcher = patched) -> Tensor:
        return apply_model(args["input"], args["timestep"], **args["c"])

    patched.set_model_unet_function_wrapper(step)
    assert torch.equal(studio.sample(patched), expected)
    del patched, step
    gc.collect()
    assert_no_hooks(studio.base(kind))
    assert not any(network() for network in networks)
    studio.check_base(kind)


def test_control_maps_are_forgotten(studio: Studio) -> None:
    """They are computed once per size in a run, and none is kept after it, however it ended."""
    patched = studio.patch("given")
    (net,) = (model.model for model in patched.get_additional_models())
    encoder = net.kwargs_encoder
    calls: list[int] = []
    kept: list[weakref.ref[Tensor]] = []

    def watch(module: Any, args: Any, maps: list[Tensor]) -> None:
        calls.append(len(maps))
        kept.extend(weakref.ref(found) for found in maps)

    handle = encoder.register_forward_hook(watch)
    try:
        studio.sample(patched, steps=3)
        assert len(calls) == 1

        def interrupt(step: int, *_: Any) -> None:
            raise memory.InterruptProcessingException

        with pytest.raises(memory.InterruptProcessingException):
            studio.sample(patched, steps=3, callback=interrupt)
    finally:
        handle.remove()
    gc.collect()
    assert kept and not any(found() is not None for found in kept)


# Little memory


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "flux" not in kind])
def test_partly_loaded(studio: Studio, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """With almost no memory for weights, the host patches them anew for each layer as it runs; hooks stay on the same modules."""
    expected, plain = studio.fresh(kind), studio.plain(kind)
    memory.unload_all_models()
    patched = studio.patch(kind)

    def use_little(self: Any, extra_memory: float, force_patch_weights: bool = False) -> float:
        return self.model.partially_load(self.device, 20000, force_patch_weights=force_patch_weights)

    monkeypatch.setattr(memory.LoadedModel, "model_use_more_vram", use_little)
    actual = studio.sample(patched)
    assert patched.model.model_lowvram, "the host was to load a part only"
    assert_same(actual, expected, plain)
    again = studio.sample(patched)
    assert torch.equal(again, actual)
    monkeypatch.undo()
    memory.unload_all_models()
    studio.check_base(kind)


def test_reference_agrees_with_the_patched_model_after_all_this(studio: Studio) -> None:
    """The results that all others were compared with are the right ones."""
    written_out = Shared(studio.bases["sd15"], studio.files["joint"]).model
    expected = sample(written_out, prompt("sd15", 1), prompt("sd15", 2), noise(6), steps=1)
    assert_same(studio.fresh("joint"), expected, studio.plain("joint"))
