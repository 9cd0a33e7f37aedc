"""One real ComfyUI server with its real frontend in a headless browser."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev import bundled
from dev import host as hosts
from dev.frontend import Frontend, ensure_browser
from dev.server import ComfyServer, stage, unstage


@pytest.fixture(scope="module")
def server() -> Iterator[ComfyServer]:
    """A running server with this pack, the stand-ins, their files and a picture to load.

    Gone with the last test of a module: the browser's event loop must not be running when other tests start theirs.
    """
    from dev.stand_ins.weights import write_all

    if ensure_browser() is None:
        pytest.skip("optional: no browser found, and none can be installed here")
    stages = hosts.HOME / "stages"
    stages.mkdir(parents=True, exist_ok=True)
    base = Path(tempfile.mkdtemp(prefix="browser-", dir=stages))
    try:
        stage(base, {hosts.PACK: hosts.ROOT, "stand_ins": hosts.ROOT / "dev" / "stand_ins"})
        write_all(base / "models")
        bundled.draw_cut_out(base / "input" / bundled.EXAMPLE, 128, 96)
        with ComfyServer(base) as running:
            yield running
    finally:
        unstage(base)


@pytest.fixture(scope="module")
def frontend(server: ComfyServer) -> Iterator[Frontend]:
    with Frontend(server.url) as opened:
        yield opened
