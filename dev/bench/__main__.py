"""Time and memory of what this pack does, on full-size networks with random weights: `make bench`. Prints tables; judges nothing.

make bench                              everything
make bench ARGS="decode pixels"         some of it: decode, large, sharing, patching, pixels, startup, growth
make bench ARGS="decode --dtype bfloat16"

Each part is a process of its own: what one leaves in memory would show in the peaks and times of the next.

textbook: the same work done in the plain way, in the same run. floor: the operations over what this machine reaches in a matrix product,
or the bytes over what it reaches in a copy.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import torch

from dev.in_process import import_host

from . import decode, growth, large, patching, pixels, sharing, startup
from .measure import Machine
from .table import markdown

PARTS = {
    "decode": decode,
    "large": large,
    "sharing": sharing,
    "patching": patching,
    "pixels": pixels,
    "startup": startup,
    "growth": growth,
}
NEED_HOST = ("large", "sharing", "patching")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.bench", description="Prints tables of times and memory.")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=f"{', '.join(PARTS)}; all if none is named")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], help="default: float16 on a graphics card, else float32")
    arguments = parser.parse_args()
    parts = arguments.parts or list(PARTS)
    if len(parts) == 1:
        measure(parts[0], arguments.dtype)
        return 0
    options = ["--dtype", arguments.dtype] if arguments.dtype else []
    failed = [part for part in parts if subprocess.run([sys.executable, "-m", __spec__.name, part, *options]).returncode]
    return 1 if failed else 0


@torch.inference_mode()
def measure(part: str, dtype_name: str | None) -> None:
    """Prints the table of one part."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = getattr(torch, dtype_name or ("float16" if device.type == "cuda" else "float32"))
    machine = Machine.of(device, dtype)
    print(f"{date.today()}, {machine}\n", flush=True)
    with tempfile.TemporaryDirectory() as base:
        if part in NEED_HOST:
            import_host(Path(base), *(["--cpu"] if device.type == "cpu" else []))
        rows = []
        for row in PARTS[part].rows(machine):
            print(f"{row.work}: {row.cells()[1]}", file=sys.stderr, flush=True)
            rows.append(row.cells())
    print(markdown(rows), end="\n\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
