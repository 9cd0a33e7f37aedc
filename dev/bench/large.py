"""Decoding a picture that is too large for the memory of most graphics cards, as the node does: in tiles that fit."""

# The host is not typed, and only there once it has been imported.
# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from unittest import mock

from .decode import new_decoder, operations_of_a_pass, pictures
from .measure import Machine, cost_of_one
from .table import Row

SIDE, PASSES = 4096, 1
TILE = 1024  # of the floor: as if tiles did not overlap
BUDGET = 12 * 2**30


def rows(machine: Machine) -> Iterator[Row]:
    """Needs the host in this process."""
    import comfy.model_management as memory

    from lib_layerdiffuse.comfyui.alpha.codec import decode_rgba
    from lib_layerdiffuse.comfyui.alpha.managed_network import ManagedNetwork
    from lib_layerdiffuse.nets.transparent_decoder import TransparentDecoder

    decoder = ManagedNetwork(TransparentDecoder, new_decoder(machine).state_dict())
    pixel, latent = pictures(machine, SIDE, 1)
    with mock.patch.object(memory, "get_free_memory", return_value=BUDGET):
        found = cost_of_one(partial(decode_rgba, decoder, pixel.movedim(1, -1), latent, passes=PASSES))
    floor = PASSES * (SIDE // TILE) ** 2 * operations_of_a_pass(machine, TILE) / machine.operations
    name = f"transparency decode, {SIDE}x{SIDE}, {PASSES} pass, where {BUDGET >> 30} GiB are free"
    yield Row(name, found, floor=floor, goal=f"less than {BUDGET >> 30} GiB")
