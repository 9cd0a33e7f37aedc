"""One real ComfyUI server for all live tests, with this pack and the stand-in models."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev import host as hosts
from dev.server import ComfyServer, stage, unstage


@pytest.fixture(scope="session")
def server() -> Iterator[ComfyServer]:
    """A running server on a fresh base directory whose models folder holds the stand-in files."""
    from dev.stand_ins.weights import write_all

    stages = hosts.HOME / "stages"
    stages.mkdir(parents=True, exist_ok=True)
    base = Path(tempfile.mkdtemp(prefix="live-", dir=stages))
    try:
        stage(base, {hosts.PACK: hosts.ROOT, "stand_ins": hosts.ROOT / "dev" / "stand_ins"})
        write_all(base / "models")
        with ComfyServer(base) as running:
            yield running
    finally:
        unstage(base)
