"""Attention sharing whose matrices are multiplied beforehand gives what the file's own layers give."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lib_layerdiffuse.nets.attention_sharing import PROJECTIONS, SharingUnit

WIDTH, CONTEXT, HEADS, TOKENS = 32, 24, 4, 10


def unit_of(frames: int, rank: int) -> SharingUnit:
    shapes: dict[str, tuple[int, ...]] = {"temporal_i.weight": (WIDTH, WIDTH)}
    for projection in PROJECTIONS:
        in_channels = CONTEXT if projection in "kv" else WIDTH
        shapes |= {f"to_{projection}_lora.0.down.weight": (rank, in_channels), f"to_{projection}_lora.0.up.weight": (WIDTH, rank)}
    torch.manual_seed(frames)
    return SharingUnit("", shapes, frames, nn).requires_grad_(False)


@pytest.mark.parametrize("rank", [4, 64])
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_one_matrix_for_several_gives_the_same(frames: int, rank: int) -> None:
    unit = unit_of(frames, rank)
    x, text = torch.randn(2 * frames, TOKENS, WIDTH), torch.randn(2 * frames, TOKENS, CONTEXT)

    def results() -> list[torch.Tensor]:
        changes = [unit.change(projection, text if projection in "kv" else x) for projection in PROJECTIONS]
        return [unit.temporal(x, HEADS), *changes]

    before, count = results(), sum(p.numel() for p in unit.parameters())
    unit.multiply_out(torch.device("cpu"), merged=False)
    for multiplied, plain in zip(results(), before, strict=True):
        assert torch.allclose(multiplied, plain, atol=1e-5, rtol=0)
    assert (sum(p.numel() for p in unit.parameters()) < count) == (frames == 1 or rank == 64)
