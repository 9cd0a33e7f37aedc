"""Time and memory of what this pack adds, on full-size networks with random weights. Prints a table; judges nothing."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from dev import host as hosts
from lib_layerdiffuse.nets.offset_encoder import OffsetEncoder
from lib_layerdiffuse.nets.transparency import estimate_rgba
from lib_layerdiffuse.nets.transparent_decoder import TransparentDecoder
from lib_layerdiffuse.pixels.bleed import bleed_rgb

FACTS = hosts.ROOT / "tests" / "golden" / "facts"
DECODER_FLOP_PER_PIXEL = 0.759e12 / 1024**2
REPEATS = 3


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    return {key: tuple(shape) for key, shape in json.loads((FACTS / f"{name}.json").read_text())["tensors"].items()}


def seconds(run: Callable[[], object]) -> float:
    """The best of a few runs after one to warm up."""
    run()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP per second that this machine reaches in a large matrix product: the floor for everything below."""
    x = torch.randn(2048, 2048, device=device, dtype=dtype)
    return 2 * 2048**3 / seconds(lambda: x @ x)


def peak_memory(run: Callable[[], object]) -> float | None:
    """GiB that `run` adds at its peak; None where nobody can tell."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**30
    status = Path("/proc/self/status")
    if not status.exists():
        return None

    def read(field: str) -> int:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(field))

    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = read("VmRSS")
    run()
    return (read("VmHWM") - before) / 2**20


def row(name: str, run: Callable[[], object], floor: float | None = None) -> None:
    memory = peak_memory(run)
    took = seconds(run)
    above = f"{took / floor:6.1f} x floor" if floor else ""
    print(f"{name:<44}{took:9.3f} s {'' if memory is None else f'{memory:7.2f} GiB'}  {above}", flush=True)


@torch.inference_mode()
def main() -> int:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    rate = matmul_rate(device, dtype)
    print(
        f"torch {torch.__version__}, {device.type}, {dtype}, {torch.get_num_threads()} threads, {rate / 1e9:.0f} GFLOP/s in matrix products"
    )

    decoder = TransparentDecoder.from_shapes(shapes("transparent_decoder"), device=device, dtype=dtype).eval()
    encoder = OffsetEncoder.from_shapes(shapes("offset_encoder"), device=device, dtype=dtype).eval()
    for side in (256, 512) if device.type == "cpu" else (512, 1024, 2048):
        pixel = torch.rand(1, 3, side, side, device=device, dtype=dtype)
        latent = torch.randn(1, 4, side // 8, side // 8, device=device, dtype=dtype)
        for passes in (1, 8):
            floor = DECODER_FLOP_PER_PIXEL * side**2 * passes / rate
            row(f"transparency decode {side}x{side}, {passes} passes", partial(estimate_rgba, decoder, pixel, latent, passes), floor)
        rgba = torch.rand(1, 4, side, side, device=device, dtype=dtype)
        row(f"offset encode {side}x{side}", partial(encoder, rgba))
    for side in (512, 1024):
        picture = torch.rand(1, side, side, 4, device=device)
        row(f"bleed {side}x{side}", partial(bleed_rgb, picture))
    return 0


if __name__ == "__main__":
    sys.exit(main())
