"""How many pictures are computed together, and in tiles of which size: the fastest way first, a smaller one after memory ran out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import comfy.model_management as memory

from ...errors import DiaphaneError
from .managed_network import ManagedNetwork

logger = logging.getLogger("diaphane")

FALLBACK_TILES = (1024, 512, 256)
TILE_STEP = 64  # the released decoders take multiples of this

# Free memory is looked at before anything runs: there, the system swaps and then ends ComfyUI before torch runs out of memory.
SILENT_DEVICES = ("cpu", "mps")
APPLE_OUT_OF_MEMORY = ("MPS backend out of memory", "Invalid buffer size")  # how torch's plain RuntimeErrors begin there


class Plan(NamedTuple):
    """One way to compute a batch of pictures."""

    tile: int  # side of the tiles in pixels; 0 = whole pictures
    batches: Iterator[slice]  # the rows that are computed together; what the last plan finished with this tile size stays


def plans(network: ManagedNetwork[Any], verb: str, shape: Sequence[int], tile: int, bytes_for: Callable[[int], int]) -> Iterator[Plan]:
    """Load the network and yield plans for pictures of `shape` (count, height, width), until the caller leaves its loop.

    The caller asks for the next plan, outside the handler, when the last one ran out of memory: as many pictures as memory is free for,
    half of them, down to one; then, if `tile` is 0, the same in ever smaller tiles. bytes_for: working memory for a picture or tile of so
    many pixels. verb: what is done, for sentences. Raises DiaphaneError after the last plan.
    """
    count, height, width = shape
    finished = 0  # rows, in tiles of the present size

    def batches(size: int) -> Iterator[slice]:
        nonlocal finished
        while finished < count:
            yield slice(finished, min(count, finished + size))
            finished += size

    tile = -(-tile // TILE_STEP) * TILE_STEP  # over a wire comes any number
    longest = max(height, width)
    sides = (tile,) if 0 < tile < longest else (0, *(side for side in FALLBACK_TILES if side < longest))
    for side in sides:
        needed = bytes_for(side * side or height * width)
        memory.load_models_gpu([network.patcher], memory_required=needed)
        free = int(network.patcher.get_free_memory(network.device))
        size = max(1, min(count, free // needed))
        if free < needed and network.device.type in SILENT_DEVICES and side != sides[-1]:
            size = 0
        finished = 0
        while size:
            yield Plan(side, batches(size))
            memory.soft_empty_cache()
            size = (size + 1) // 2 if size > 1 else 0
        logger.warning("Not enough memory to %s %dx%d %s.", verb, width, height, f"in tiles of {side}" if side else "as a whole")
    raise DiaphaneError(
        f"Not enough memory to {verb} a picture of {width}x{height}{f' in tiles of {sides[-1]} pixels' if sides[-1] else ''}. "
        "Close other programs, set a smaller tile size, or scale the picture down."
    )


def raise_non_oom(error: Exception) -> None:
    """Raise the error again unless memory ran out; ComfyUI's function of that name does not know Apple's errors.

    What is to be tried next has to come after the `except` block: until then, the traceback holds the tensors of the failed run.
    """
    if not str(error).startswith(APPLE_OUT_OF_MEMORY):
        memory.raise_non_oom(error)
