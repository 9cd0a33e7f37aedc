"""One real ComfyUI server with a real frontend in a headless browser: the frontend that the host brings, and the newest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dev import bundled
from dev.frontend import Frontend, ensure_browser, ensure_frontend
from dev.server import PACKS, ComfyServer, staged

NEWEST = "1.58.1"
BOTH_RENDERERS = pytest.mark.parametrize("renderer", ["classic", "vue"], indirect=True, scope="module")
SAYS = Path(__file__).with_name("says")


@pytest.fixture(scope="module", params=[None, NEWEST], ids=["pinned", NEWEST])
def version(request: pytest.FixtureRequest) -> str | None:
    """Of the frontend; None for the host's own."""
    return request.param


@pytest.fixture(scope="module", params=["classic"])
def renderer(request: pytest.FixtureRequest) -> str:
    """What draws the nodes: "classic", or "vue" (Nodes 2.0) too where a test asks for BOTH_RENDERERS."""
    return request.param


@pytest.fixture(scope="module")
def server(version: str | None) -> Iterator[ComfyServer]:
    """A running server with this pack, the stand-ins, their files, a node that talks and a picture to load.

    Gone with the last test of a module: the browser's event loop must not be running when other tests start theirs.
    """
    if ensure_browser() is None:
        pytest.skip("optional: no browser found, and none can be installed here")
    arguments = ["--front-end-root", str(ensure_frontend(version))] if version else []
    with staged("browser-", {**PACKS, SAYS.name: SAYS}, stand_ins=True) as base:
        bundled.draw_cut_out(base / "input" / bundled.EXAMPLE, 128, 96)
        bundled.draw_document(base / "input" / bundled.DOCUMENT, 128, 96)
        with ComfyServer(base, extra_args=arguments) as running:
            yield running


@pytest.fixture(scope="module")
def frontend(server: ComfyServer, renderer: str) -> Iterator[Frontend]:
    with Frontend(server.url, settings={"Comfy.VueNodes.Enabled": renderer == "vue"}) as opened:
        yield opened
