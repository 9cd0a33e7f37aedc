"""One real ComfyUI server for all live tests, with this pack and the stand-in models."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dev.server import ComfyServer, staged


@pytest.fixture(scope="session")
def server() -> Iterator[ComfyServer]:
    """A running server on a fresh base directory whose models folder holds the stand-in files."""
    with staged("live-", stand_ins=True) as base, ComfyServer(base) as running:
        yield running
