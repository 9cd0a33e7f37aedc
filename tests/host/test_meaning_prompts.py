"""Pictures of the mini family, painted in the host, show what the prompt says. The prompts are combinations that training never saw."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import pytest
import torch

from lib_layerdiffuse.comfyui.alpha.alpha_vae import AlphaVAE
from lib_layerdiffuse.comfyui.models.mini import load_mini
from lib_layerdiffuse.comfyui.recipes.transparent import make_transparent
from lib_layerdiffuse.weights.catalogue import Family
from training.data.captions import describe, is_held_out
from training.data.colours import COLOURS
from training.data.shapes import SHAPES
from training.data.sprites import MATERIALS
from training.judge import Verdict, judge

from .reference import as_the_host_runs

core: Any = importlib.import_module("nodes")  # ComfyUI's own module

COUNT, BATCH = 80, 20
SIDE, STEPS, GUIDANCE = 128, 10, 2.5
NAMED = 3  # materials that captions have a word for


@dataclass(frozen=True)
class Painted:
    shape: str
    colour: str
    material: str
    verdict: Verdict


def held_out() -> list[tuple[str, str, str]]:
    """Shape, colour and material of every combination that was kept from training."""
    grid = torch.cartesian_prod(torch.arange(len(SHAPES)), torch.arange(len(COLOURS)), torch.arange(NAMED))
    return [(SHAPES[s], COLOURS[c], MATERIALS[m]) for s, c, m in grid[is_held_out(*grid.unbind(1))].tolist()]


@pytest.fixture(scope="module")
def pictures() -> Iterator[list[Painted]]:
    kinds = held_out()
    asked = [kinds[i % len(kinds)] for i in range(COUNT)]
    with as_the_host_runs():
        model, clip, vae = load_mini()
        transparent = make_transparent(model)
        nothing = [[clip.encode_from_tokens(clip.tokenize("")), {}]]
        verdicts: list[Verdict] = []
        for first in range(0, COUNT, BATCH):
            prompts = [describe(*kind) for kind in asked[first : first + BATCH]]
            # One row for each picture of the batch: the host samples them all at once.
            text = [[torch.cat([clip.encode_from_tokens(clip.tokenize(prompt)) for prompt in prompts]), {}]]
            empty = {"samples": torch.zeros(len(prompts), 4, SIDE // 8, SIDE // 8)}
            [latent] = core.common_ksampler(transparent, first, STEPS, GUIDANCE, "dpmpp_2m", "normal", text, nothing, empty)
            verdicts += judge(AlphaVAE(vae, Family.SD15).decode(latent).rgba.movedim(-1, 1))
        yield [Painted(*kind, verdict) for kind, verdict in zip(asked, verdicts, strict=True)]


def share(hits: list[bool]) -> float:
    return sum(hits) / len(hits)


def test_shape(pictures: list[Painted]) -> None:
    assert share([picture.verdict.shape == picture.shape for picture in pictures]) >= 0.90


def test_colour(pictures: list[Painted]) -> None:
    assert share([picture.verdict.colour == picture.colour for picture in pictures]) >= 0.95


def test_material(pictures: list[Painted]) -> None:
    assert share([picture.verdict.material == picture.material for picture in pictures]) >= 0.90


def test_outline(pictures: list[Painted]) -> None:
    """Alpha has the outline of a shape, whichever it is."""
    assert median(picture.verdict.overlap for picture in pictures) >= 0.9
