"""What all tests share: the import path, the golden data, and the rule that continuous integration skips nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"

# Workers share the cores, and so do the servers that they start.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    threads = max(1, (os.cpu_count() or 1) // int(workers))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    torch.set_num_threads(threads)

# At the end: ComfyUI has a module `nodes` too, and its own code must find that one.
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Under CI a skip is a failure, unless its reason starts with "optional:" (something this platform cannot have)."""
    if not os.environ.get("CI") or report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith("optional:"):
        report.outcome = "failed"
        report.longrepr = f"Skipped under CI, where nothing may be skipped: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _forbid_skip(report)
    return report


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, Tensor]]:
    """golden(name) -> the tensors of a golden file."""
    return lambda name: load_file(GOLDEN / f"{name}.safetensors")


@pytest.fixture(scope="session")
def seeded() -> Callable[..., dict[str, Tensor]]:
    """seeded(name of a shapes file, seed=0) -> the state dict that the golden values were computed with, for seed 0."""
    spec = importlib.util.spec_from_file_location("seeded", GOLDEN / "seeded.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def weights(name: str, seed: int = 0, prefix: str = "") -> dict[str, Tensor]:
        table = json.loads((GOLDEN / f"{name}_shapes.json").read_text())
        return {key: torch.from_numpy(module.seeded_tensor(prefix + key, tuple(shape), seed)) for key, shape in table.items()}

    return weights
