"""Disks that run full: a real one of a few hundred KB where one can be mounted, and one that takes no files of any size."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOM = 4 << 20
LEFT = 16 << 10  # bytes that are free when it is "full"


@dataclass
class Disk:
    """folder: where to write. full(): a time in which next to nothing fits. The words are the system's reasons in our messages."""

    folder: Path
    full: Callable[[], AbstractContextManager[None]]
    words_when_downloading: str


@pytest.fixture(params=["full", "no large files"])
def small_disk(request: Any, tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "small disk"
    folder.mkdir()
    if request.param == "no large files":
        yield Disk(folder, _no_large_files, "cannot hold a file of that size")
        return
    mounted = sys.platform == "linux" and os.geteuid() == 0
    mounted = mounted and not subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)], check=False).returncode
    if not mounted:
        pytest.skip("optional: no file system can be mounted here")
    try:
        yield Disk(folder, lambda: _filled(folder), "is full")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def _filled(folder: Path) -> Iterator[None]:
    filler = folder / "filler"
    with filler.open("wb") as file:
        file.write(bytes(os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize - LEFT))
    yield
    filler.unlink()


@contextmanager
def _no_large_files() -> Iterator[None]:
    if sys.platform == "win32":
        pytest.skip("optional: Windows limits no files")
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LEFT, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
