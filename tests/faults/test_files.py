"""Every weight file in every wrong place, and what is no file: a message with its name, and the right file works right after."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lib_layerdiffuse.weights.read import read_state_dict
from tests.faults.reports import told
from tests.faults.slots import NAMES, SLOTS, at, spoilt

__all__ = ["at", "spoilt"]


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("name", NAMES)
def test_each_file_in_each_place(at: Callable[[str, str], Any], slot: str, name: str) -> None:
    if name in SLOTS[slot].fitting:
        assert at(slot, name)
    else:
        told(lambda: at(slot, name), [name])
    # Patching a model takes a while: once after each kind of file for every job is enough.
    if SLOTS[slot].setting != "file" or name == next(other for other in NAMES if other not in SLOTS[slot].fitting):
        assert at(slot, SLOTS[slot].fitting[0])


def test_every_file_has_a_place() -> None:
    assert {name for slot in SLOTS.values() for name in slot.fitting} == set(NAMES)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, whom permissions do not bind."""
    if os.geteuid() != 0:
        yield
        return
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder whose parents anyone may pass through."""
    folder = Path(tempfile.mkdtemp(prefix="diaphane-faults-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.name == "nt", reason="optional: Windows has other permissions")
def test_no_permission_to_read(open_folder: Path, layer_models: Path) -> None:
    path = open_folder / "mine.safetensors"
    shutil.copy(layer_models / "vae_transparent_decoder.safetensors", path)
    path.chmod(0)
    with as_nobody():
        told(lambda: read_state_dict(path), [str(path), "may not be read by this user", "Change its permissions"])
    path.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
    with as_nobody():
        assert read_state_dict(path)


@pytest.mark.parametrize("kind", ["folder", "dangling link", "link in a circle", "pipe"])
@pytest.mark.skipif(os.name == "nt", reason="optional: links and pipes need privileges there")
def test_what_is_no_file(at: Callable[[str, str], Any], spoilt: Path, kind: str) -> None:
    path = spoilt / "mine.safetensors"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path if kind == "link in a circle" else spoilt / "nowhere")
    told(lambda: at("decode", path.name), [path.name, "There is no file", str(spoilt), "Choose another one"])
    assert at("decode", "auto")


def test_a_link_to_a_file_is_a_file(at: Callable[[str, str], Any], spoilt: Path, layer_models: Path) -> None:
    (spoilt / "link.safetensors").symlink_to(layer_models / "vae_transparent_decoder.safetensors")
    assert at("decode", "link.safetensors")
