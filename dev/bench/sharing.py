"""A step of a full-size SD1.5 UNet with random weights, of one transparent layer and of three that share attention, against the same
batch without."""

# The host is not typed.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from dev.in_process import sampling
from dev.stand_ins.shapes import table

from .measure import Machine, Work, cost, in_turns, operations
from .models import random_model
from .table import Row

FRAMES = (1, 3)
SIDES = (256, 512)
STEP = 5.0  # sigma
TURNS = 3
GOAL = "1.15 times a plain step; by operations alone it is {:.2f}"


def rows(machine: Machine) -> Iterator[Row]:
    """Needs the host in this process."""
    from lib_layerdiffuse.comfyui.patch.attention_sharing import share_attention

    plain = random_model("SD1.5", machine, machine.dtype)
    for frames in FRAMES:
        weights = {key: torch.randn(shape) * 0.02 for key, shape in table(f"facts/sd15_attention_sharing_f{frames}").items()}
        patchers = share_attention(plain, weights), plain
        for side in SIDES:
            step = partial(at_step, machine, frames, side)
            ours, plainly = in_turns([partial(step, partial(cost, repeats=1), patcher) for patcher in patchers], TURNS)
            needed = [step(operations, patcher) for patcher in patchers]
            floor, goal = needed[0] / machine.operations, GOAL.format(needed[0] / needed[1])
            yield Row(f"UNet step, {frames} {'layer' if frames == 1 else 'layers'} of {side}x{side}", ours, plainly, floor, goal)


def at_step(machine: Machine, frames: int, side: int, measure: Callable[[Work], Any], patcher: Any) -> Any:
    """What `measure` finds of one step of the model."""
    latent = torch.randn(frames, 4, side // 8, side // 8, device=machine.device)
    text = torch.randn(frames, 77, 768, device=machine.device, dtype=machine.dtype)
    with sampling(patcher, torch.full((frames,), STEP, device=machine.device)) as predict:
        return measure(partial(predict, latent, text))
