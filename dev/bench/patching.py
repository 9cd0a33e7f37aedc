"""Merging the largest delta file into a full-size SDXL model, again and with another weight, and what it costs while it is off."""

# The host is not typed, and only there once it has been imported.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from dev.in_process import sampling
from dev.stand_ins.shapes import table

from .measure import Cost, Machine, cost, cost_of_one, in_turns, own_memory
from .models import random_model
from .table import Row

SIDE = 256
OPEN, OFF = 1.0, 5.0  # sigma inside and outside of the range
RANGE = (0.5, 1.0)
TURNS = 5


def rows(machine: Machine) -> Iterator[Row]:
    """Needs the host in this process."""
    from comfy.model_management import load_models_gpu

    from lib_layerdiffuse.comfyui.patch.deltas import apply_deltas
    from lib_layerdiffuse.weights.read import read_state_dict

    plain = random_model("SDXL", machine, torch.float16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deltas.safetensors"
        save_file({key: torch.zeros(shape, dtype=torch.float16) for key, shape in table("facts/xl_transparent_conv").items()}, path)
        size = path.stat().st_size
        name = f"{size / 1e9:.1f} GB of deltas"
        yield Row(f"open {name}", cost(partial(read_state_dict, path)), cost(partial(read_whole, path), repeats=1), goal="mapped")

        weights = read_state_dict(path)
        load_models_gpu([plain])
        strengths = iter((1.0, 0.9))
        patched: list[Any] = []

        def patch() -> None:
            patched[:] = [apply_deltas(plain, weights, weight=next(strengths))]
            load_models_gpu(patched)

        memory = own_memory(patch)
        # Deltas and weights are read; weights, and what they were, written.
        floor = 4 * size / machine.copies
        again = Cost(cost_of_one(patch).seconds, memory)
        yield Row(f"patch SDXL with {name}, another weight than before", again, floor=floor, goal="own memory: 1.1 times the file")
        yield Row("queue the same again", cost(partial(load_models_gpu, patched)), goal="patches nothing")

        ranged = apply_deltas(plain, weights, start=RANGE[0], end=RANGE[1])
        # Loading one of these models takes out the patches of the other.
        off, without = in_turns([partial(step, machine, patcher, OFF) for patcher in (ranged, plain)], TURNS)
        on = step(machine, ranged, OPEN)
        yield Row(f"SDXL step, {SIDE}x{SIDE}, outside of the range", off, without, goal="1.05 times a plain step")
        yield Row(f"SDXL step, {SIDE}x{SIDE}, inside of the range", on, without)


def read_whole(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load

    return load(path.read_bytes())


def step(machine: Machine, patcher: Any, sigma: float) -> Cost:
    device = machine.device
    latent = torch.randn(1, 4, SIDE // 8, SIDE // 8, device=device)
    text = torch.randn(1, 77, 2048, device=device, dtype=machine.dtype)
    pooled = torch.randn(1, 2816, device=device, dtype=machine.dtype)
    with sampling(patcher, torch.full((1,), sigma, device=device)) as predict:
        return cost(partial(predict, latent, text, y=pooled), repeats=2)
