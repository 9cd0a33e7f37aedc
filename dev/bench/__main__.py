"""Time and memory of what this pack does, on full-size networks with random weights: `make bench`. Prints a table; judges nothing.

make bench                              everything
make bench ARGS="decode pixels"         some of it: decode, large, sharing, patching, pixels, startup, growth
make bench ARGS="decode --dtype bfloat16"

textbook: the same work done in the plain way, in the same run. floor: the operations over what this machine reaches in a matrix product,
or the bytes over what it reaches in a copy.
"""

from __future__ import annotations

import argparse
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


@torch.inference_mode()
def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.bench", description="Prints a table of times and memory.")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=f"{', '.join(PARTS)}; all if none is named")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], help="default: float16 on a graphics card, else float32")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = getattr(torch, arguments.dtype or ("float16" if device.type == "cuda" else "float32"))
    parts = arguments.parts or list(PARTS)
    machine = Machine.of(device, dtype)
    print(f"{date.today()}, {machine}\n", flush=True)
    with tempfile.TemporaryDirectory() as base:
        if {"large", "sharing", "patching"} & set(parts):
            import_host(Path(base), *(["--cpu"] if device.type == "cpu" else []))
        rows = []
        for part in parts:
            for row in PARTS[part].rows(machine):
                print(f"{row.work}: {row.cells()[1]}", file=sys.stderr, flush=True)
                rows.append(row.cells())
    print(markdown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
