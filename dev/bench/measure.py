"""Time and memory of a piece of work, and what the machine can do at best."""

from __future__ import annotations

import ctypes
import gc
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

REPEATS = 3
STATUS = Path("/proc/self/status")
MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD in malloc.h

Work = Callable[[], object]


@dataclass(frozen=True)
class Cost:
    """Of one run: the best time of a few, and what it takes in memory at its peak beside what was there before."""

    seconds: float
    peak: int | None  # bytes; None where the system does not say


def cost(work: Work, repeats: int = REPEATS) -> Cost:
    """The first run warms up, and is the one whose memory counts: later ones find memory that it has left."""
    with _nothing_kept_for_later():
        peak = _peak(work)
    return Cost(min(_seconds(work) for _ in range(repeats)), peak)


def costs(first: Work, second: Work, repeats: int = REPEATS) -> tuple[Cost, Cost]:
    """Of two that are to be compared, in turns, so that a machine that slows down slows both."""
    with _nothing_kept_for_later():
        peaks = _peak(first), _peak(second)
    times = [(_seconds(first), _seconds(second)) for _ in range(repeats)]
    return Cost(min(time for time, _ in times), peaks[0]), Cost(min(time for _, time in times), peaks[1])


def in_turns(measurements: Sequence[Callable[[], Cost]], turns: int) -> list[Cost]:
    """As `costs`, for what has to be prepared for each turn: the fastest that each measurement has found."""
    found = [[measure() for measure in measurements] for _ in range(turns)]
    return [min(of_one, key=lambda turn: turn.seconds) for of_one in zip(*found, strict=True)]


def cost_of_one(work: Work) -> Cost:
    """Of work that takes minutes: the first run is the only one."""
    seconds = 0.0

    def timed() -> None:
        nonlocal seconds
        seconds = _seconds(work)

    peak = _peak(timed)
    return Cost(seconds, peak)


def _seconds(work: Work) -> float:
    # What else the machine does counts for nothing when one thread of this process does all the work.
    clock = time.process_time if torch.get_num_threads() == 1 and not torch.cuda.is_available() else time.perf_counter
    _wait()
    start = clock()
    work()
    _wait()
    return clock() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def operations(work: Work) -> int:
    """Floating-point operations of its matrix products and convolutions."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def own_memory(work: Work) -> int | None:
    """Bytes at the peak beside what was there before, without the pages of mapped files, which the system may take back."""
    if torch.cuda.is_available() or not STATUS.exists():
        return _peak(work)
    _return_free_memory()
    before = highest = _status("RssAnon")
    ended = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not ended.wait(0.02):
            highest = max(highest, _status("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        ended.set()
        watcher.join()
    return max(highest, _status("RssAnon")) - before


def _peak(work: Work) -> int | None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    if not STATUS.exists():
        work()
        return None
    _return_free_memory()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(field)) * 1024


def _return_free_memory() -> None:
    """What the C library keeps for later would hide what is needed."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextmanager
def _nothing_kept_for_later() -> Iterator[None]:
    """The GNU C library, left alone, comes to keep freed pieces of up to 32 MiB. Meanwhile it gives all but small ones back at once."""
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is not None:
        tune(MMAP_THRESHOLD, 1 << 17)
    try:
        yield
    finally:
        if tune is not None:  # what it comes to by itself, but no longer does once it has been told
            tune(MMAP_THRESHOLD, 1 << 25)
            tune(TRIM_THRESHOLD, 1 << 26)


@dataclass(frozen=True)
class Machine:
    """What it is measured on, and what that can do at best."""

    device: torch.device
    dtype: torch.dtype  # of networks
    operations: float  # per second, in a large matrix product
    copies: float  # bytes per second, read and written, in a large copy

    @classmethod
    def of(cls, device: torch.device, dtype: torch.dtype) -> Machine:
        return cls(device, dtype, _matmul_rate(device, dtype), _copy_rate(device))

    def __str__(self) -> str:
        return (
            f"{_name(self.device)}, torch {torch.__version__}, {str(self.dtype).removeprefix('torch.')}: "
            f"{self.operations / 1e9:.0f} GFLOP/s in matrix products, {self.copies / 1e9:.1f} GB/s in copies"
        )


def _matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    x = torch.randn(2048, 2048, device=device, dtype=dtype)
    return 2 * 2048**3 / cost(lambda: x @ x).seconds


def _copy_rate(device: torch.device) -> float:
    x = torch.empty(1 << 28, dtype=torch.uint8, device=device)
    y = torch.empty_like(x)
    return 2 * x.numel() / cost(lambda: y.copy_(x)).seconds


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
