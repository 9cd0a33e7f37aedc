"""Strength, a value: what it accepts, and at which steps it is active; and the keywords that set its fields one by one."""

# ComfyUI is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
# pyright: reportFunctionMemberAccess=false
from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError

import pytest
from comfy.model_patcher import ModelPatcher

from dev.stand_ins.models import build_model as build_stand_in
from dev.stand_ins.weights import flux_lora
from lib_layerdiffuse.comfyui.patch.attention_sharing import share_attention
from lib_layerdiffuse.comfyui.patch.deltas import apply_deltas
from lib_layerdiffuse.comfyui.patch.lora import apply_lora
from lib_layerdiffuse.comfyui.patch.strength import Strength
from lib_layerdiffuse.errors import DiaphaneError
from tests.host.reference import build_model, stand_in_deltas, stand_in_sharing

SIGMAS = (10.0, 7.5, 5.0, 2.5)  # of four steps; each starts a quarter of the sampling


def percent_to_sigma(percent: float) -> float:
    """As ComfyUI does it: beyond every sigma at 0, nothing left at 1."""
    return 999999999.9 if percent <= 0.0 else 10.0 * (1.0 - percent)


@pytest.mark.parametrize(
    ("fields", "whole", "empty", "active"),
    [
        ((), True, False, "1111"),
        ((0.5,), True, False, "1111"),
        ((-1.0, 0.0, 1.0), True, False, "1111"),
        ((0.0,), True, True, "1111"),
        ((1.0, 0.0, 0.5), False, False, "1100"),
        ((1.0, 0.5, 1.0), False, False, "0011"),
        ((1.0, 0.25, 0.75), False, False, "0110"),
        ((1.0, 0.0, 0.999), False, False, "1111"),
        ((1.0, 0.3, 0.45), False, False, "0000"),  # between two steps
        ((1.0, 0.5, 0.5), False, True, "0000"),
        ((0.0, 0.25, 0.75), False, True, "0110"),
        ((1.0, 0.0, 0.0), False, True, "0000"),
    ],
)
def test_strength(fields: tuple[float, ...], whole: bool, empty: bool, active: str) -> None:
    strength = Strength(*fields)
    assert (strength.is_whole, strength.is_empty) == (whole, empty)
    assert "".join(str(int(strength.is_active(sigma, percent_to_sigma))) for sigma in SIGMAS) == active
    assert strength == Strength(*fields) and hash(strength) == hash(Strength(*fields))
    with pytest.raises(FrozenInstanceError):
        strength.weight = 2.0


@pytest.mark.parametrize(("start", "end"), [(0.6, 0.4), (-0.1, 1.0), (0.0, 1.1), (float("nan"), 1.0), (0.0, float("nan"))])
def test_ranges_that_do_not_exist_are_refused(start: float, end: float) -> None:
    with pytest.raises(DiaphaneError, match=f"start and end have to be between 0 and 1.*got start {start} and end {end}"):
        Strength(1.0, start, end)


CASES: dict[str, tuple[str, Callable[..., ModelPatcher]]] = {
    "deltas": ("sdxl", lambda model, **options: apply_deltas(model, stand_in_deltas("lora"), **options)),
    "sharing": ("sd15", lambda model, **options: share_attention(model, stand_in_sharing(1, control=False), **options)),
    "lora": ("flux", lambda model, **options: apply_lora(model, flux_lora("keywords"), **options)),
}


@pytest.mark.parametrize("kind", CASES)
def test_keywords_take_the_place_of_the_fields(kind: str) -> None:
    family, apply = CASES[kind]
    model = build_stand_in("Flux", 0) if family == "flux" else build_model(family)

    def strength_of(**options: object) -> list[tuple[float, float, float]]:
        """What the callbacks before each step, or else the merged patches, are made with."""
        patched = apply(model, **options)
        found = [callback.__self__.strength for key in patched.callbacks.values() for calls in key.values() for callback in calls]
        return found or [patches[0][0] for patches in list(patched.patches.values())[:1]]

    assert strength_of(weight=0.5, start=0.25, end=0.75) == strength_of(strength=Strength(0.5, 0.25, 0.75)) == [Strength(0.5, 0.25, 0.75)]
    assert strength_of(strength=Strength(0.5, 0.25, 0.75), end=0.5) == [Strength(0.5, 0.25, 0.5)]
    assert strength_of(weight=0.5) == strength_of(strength=Strength(0.5)) == [0.5]
    assert not strength_of(weight=0.0)
    with pytest.raises(DiaphaneError, match="start and end"):
        apply(model, start=0.75, end=0.25)
    with pytest.raises(TypeError, match="wieght"):
        apply(model, wieght=0.5)
