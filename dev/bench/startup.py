"""What the pack adds to the start of ComfyUI."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator

from dev import host as hosts

from .measure import REPEATS, Cost, Machine
from .table import Row

GOAL = "0.3 s"
# The host comes first, as when it is started: what it has imported costs the pack nothing.
SCRIPT = """
import importlib.util, pathlib, sys, time
from dev.in_process import import_host
import_host(pathlib.Path(sys.argv[1]), "--cpu")
import comfy_api.latest, server
spec = importlib.util.spec_from_file_location("pack", sys.argv[2] + "/__init__.py", submodule_search_locations=[sys.argv[2]])
module = sys.modules["pack"] = importlib.util.module_from_spec(spec)
start = time.perf_counter()
spec.loader.exec_module(module)
print(time.perf_counter() - start)
"""


def rows(_: Machine) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as base:
        command = [sys.executable, "-c", SCRIPT, base, str(hosts.ROOT)]
        found = [subprocess.run(command, cwd=hosts.ROOT, capture_output=True, text=True, check=True).stdout for _ in range(REPEATS)]
    yield Row("import of the pack over ComfyUI", Cost(min(float(output.split()[-1]) for output in found), None), goal=GOAL)
