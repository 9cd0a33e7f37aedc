"""One real ComfyUI server with its real frontend in a headless browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dev import bundled
from dev.frontend import Frontend, ensure_browser
from dev.server import ComfyServer, staged


@pytest.fixture(scope="module")
def server() -> Iterator[ComfyServer]:
    """A running server with this pack, the stand-ins, their files and a picture to load.

    Gone with the last test of a module: the browser's event loop must not be running when other tests start theirs.
    """
    if ensure_browser() is None:
        pytest.skip("optional: no browser found, and none can be installed here")
    with staged("browser-", stand_ins=True) as base:
        bundled.draw_cut_out(base / "input" / bundled.EXAMPLE, 128, 96)
        with ComfyServer(base) as running:
            yield running


@pytest.fixture(scope="module")
def frontend(server: ComfyServer) -> Iterator[Frontend]:
    with Frontend(server.url) as opened:
        yield opened
