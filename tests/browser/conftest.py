"""One real ComfyUI server with a real frontend in a headless browser: the frontend that the host brings, and the newest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from dev import bundled
from dev.frontend import Frontend, ensure_browser, ensure_frontend
from dev.server import PACKS, ComfyServer, staged

NEWEST = "1.58.1"
# The host's own frontend draws nodes as its users see them by default, the newest as Nodes 2.0. The other pairs are for `make test-full`.
FRONTENDS = pytest.mark.parametrize(
    ("version", "renderer"),
    [
        pytest.param(None, "classic", id="pinned-classic"),
        pytest.param(NEWEST, "vue", id=f"{NEWEST}-vue"),
        pytest.param(None, "vue", id="pinned-vue", marks=pytest.mark.full),
        pytest.param(NEWEST, "classic", id=f"{NEWEST}-classic", marks=pytest.mark.full),
    ],
    indirect=True,
    scope="module",
)
SAYS = Path(__file__).with_name("says")


@pytest.fixture(scope="module", params=[None, NEWEST], ids=["pinned", NEWEST])
def version(request: pytest.FixtureRequest) -> str | None:
    """Of the frontend; None for the host's own."""
    return request.param


@pytest.fixture(scope="module", params=["classic"])
def renderer(request: pytest.FixtureRequest) -> str:
    """What draws the nodes: "classic" or "vue" (Nodes 2.0)."""
    return request.param


@pytest.fixture(scope="session")
def server_of() -> Iterator[Callable[[str | None], ComfyServer]]:
    """server_of(version of its frontend) -> a running server with this pack, the stand-ins, their files, a node that talks and a picture
    to load. It runs until the last test has run."""
    with ExitStack() as running:

        @cache
        def start(version: str | None) -> ComfyServer:
            arguments = ["--front-end-root", str(ensure_frontend(version))] if version else []
            base = running.enter_context(staged("browser-", {**PACKS, SAYS.name: SAYS}, stand_ins=True))
            bundled.draw_cut_out(base / "input" / bundled.EXAMPLE, 128, 96)
            return running.enter_context(ComfyServer(base, extra_args=arguments))

        yield start


@pytest.fixture(scope="module")
def server(server_of: Callable[[str | None], ComfyServer], version: str | None) -> ComfyServer:
    """A running server with the frontend that the test is for."""
    if ensure_browser() is None:
        pytest.skip("optional: no browser found, and none can be installed here")
    return server_of(version)


@pytest.fixture(scope="module")
def frontend(server: ComfyServer, renderer: str) -> Iterator[Frontend]:
    """The frontend in a browser of its own, gone with the last test of a module: its event loop must not run when others start theirs."""
    with Frontend(server.url, settings={"Comfy.VueNodes.Enabled": renderer == "vue"}) as opened:
        yield opened
