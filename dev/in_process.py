"""ComfyUI in this process, on the CPU or as it chooses: for tests and benchmarks that need its models, not its server."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from dev import host as hosts


def import_host(base: Path, *arguments: str) -> None:
    """Imports ComfyUI as `main.py --base-directory BASE ARGUMENTS` would, once per process."""
    tree = str(hosts.locate().tree)
    own, sys.argv = sys.argv, ["main.py", "--base-directory", str(base), *arguments]
    sys.path.insert(0, tree)
    try:
        importlib.import_module("comfy.options").enable_args_parsing()
        importlib.import_module("comfy.cli_args")
        # While the tree comes first: this repository has a folder of that name.
        importlib.import_module("nodes")
    finally:
        sys.argv = own
        sys.path.remove(tree)
        sys.path.append(tree)
