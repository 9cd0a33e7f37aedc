"""A step of a full-size SD1.5 UNet with random weights, whose three layers share attention, against the same batch without."""

# The host is not typed.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from dev.full_size import released_shapes
from dev.in_process import sampling

from .measure import Cost, Machine, best, cost, operations
from .models import random_model
from .table import Row

FRAMES = 3
SIDES = (256, 512)
STEP = 5.0  # sigma
TURNS = 3
GOAL = "1.15 times a plain step; by operations alone it is {:.2f}"


def rows(machine: Machine) -> Iterator[Row]:
    """Needs the host in this process."""
    from lib_layerdiffuse.host.attention_sharing import share_attention

    device, dtype = machine.device, machine.dtype
    plain = random_model("SD1.5", machine, dtype)
    weights = {key: torch.randn(shape, dtype=dtype) * 0.02 for key, shape in released_shapes("sd15_attention_sharing_f3").items()}
    shared = share_attention(plain, weights)
    for side in SIDES:
        latent = torch.randn(FRAMES, 4, side // 8, side // 8, device=device)
        text = torch.randn(FRAMES, 77, 768, device=device, dtype=dtype)
        sigma = torch.full((FRAMES,), STEP, device=device)
        found: list[list[Cost]] = [[], []]
        needed = [0, 0]
        # In turns: a machine that slows down slows both.
        for _ in range(TURNS):
            for i, patcher in enumerate((shared, plain)):
                with sampling(patcher, sigma) as predict:
                    step = partial(predict, latent, text)
                    found[i].append(cost(step, repeats=1))
                    needed[i] = needed[i] or operations(step)
        ours, plainly = (best(turns) for turns in found)
        floor, goal = needed[0] / machine.operations, GOAL.format(needed[0] / needed[1])
        yield Row(f"UNet step, {FRAMES} layers of {side}x{side}", ours, plainly, floor, goal)
