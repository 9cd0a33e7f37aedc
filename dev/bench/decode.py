"""The transparency networks, at full size with random weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from dev.stand_ins.shapes import table
from lib_layerdiffuse.nets.eight_passes import ORIENTATIONS, estimate_rgba, turn, turn_back
from lib_layerdiffuse.nets.offset_encoder import OffsetEncoder
from lib_layerdiffuse.nets.transparent_decoder import TransparentDecoder

from .measure import Machine, cost, costs, operations
from .table import Row

# Side, pictures, passes. On a processor, eight passes at 2048 would take more than ten minutes.
CASES = {
    "cpu": ((512, 1, 1), (512, 1, 8), (512, 4, 1), (1024, 1, 1), (1024, 1, 8), (2048, 1, 1)),
    "cuda": ((512, 1, 8), (512, 4, 8), (1024, 1, 1), (1024, 1, 8), (2048, 1, 8)),
}
LONG = 1 << 21  # pixels times passes that take a processor so long that it measures once
GOALS = {"cpu": "1.5 times textbook, half its memory", "cuda": "twice textbook, 3 times the floor, half the memory"}


def rows(machine: Machine) -> Iterator[Row]:
    device, dtype = machine.device, machine.dtype
    decoder = new_decoder(machine)
    for side, count, passes in CASES[device.type]:
        pixel, latent = pictures(machine, side, count)
        repeats = 1 if side**2 * passes > LONG and device.type == "cpu" else 2
        ours, plain = costs(
            partial(estimate_rgba, decoder, pixel, latent, passes), partial(textbook, decoder, pixel, latent, passes), repeats
        )
        floor = passes * operations_of_a_pass(machine, side, count) / machine.operations
        name = f"transparency decode, {count} x {side}x{side}, {passes} pass{'es' * (passes > 1)}"
        yield Row(name, ours, plain, floor, GOALS[device.type])
    encoder = OffsetEncoder.from_shapes(table("facts/offset_encoder"), device=device, dtype=dtype).eval()
    rgba = torch.rand(1, 4, 1024, 1024, device=device, dtype=dtype)
    yield Row("offset encode, 1024x1024", cost(partial(encoder, rgba)))


def operations_of_a_pass(machine: Machine, side: int, count: int = 1) -> int:
    """Counted without being run. The part of attention grows with the square of the pixels."""
    nowhere = replace(machine, device=torch.device("meta"))
    return operations(partial(new_decoder(nowhere), *pictures(nowhere, side, count)))


def new_decoder(machine: Machine) -> TransparentDecoder:
    shapes = table("facts/transparent_decoder")
    return TransparentDecoder.from_shapes(shapes, device=machine.device, dtype=machine.dtype).eval().requires_grad_(False)


def pictures(machine: Machine, side: int, count: int) -> tuple[Tensor, Tensor]:
    """What the decoder takes: pixels and latents."""
    pixel = torch.rand(count, 3, side, side, device=machine.device, dtype=machine.dtype)
    return pixel, torch.randn(count, 4, side // 8, side // 8, device=machine.device, dtype=machine.dtype)


def textbook(decoder: TransparentDecoder, pixel: Tensor, latent: Tensor, passes: int) -> Tensor:
    """Pass by pass as published, every result kept until the end."""
    results = []
    with torch.enable_grad():  # the network then runs layer by layer; nothing of it wants a gradient
        for flip, quarters in ORIENTATIONS[:passes]:
            results.append(turn_back(decoder(turn(pixel, flip, quarters), turn(latent, flip, quarters)).clamp(0, 1), flip, quarters))
    return torch.stack(results).median(dim=0).values
