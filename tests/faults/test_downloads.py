"""A file that a node fetches, from a hub and onto a disk that fail at every stage; then from one that does not.

What the download itself does is in tests/unit/test_weights_fetch.py and test_weights_resume.py. Here a node in the host asks for the file.
"""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import dataclasses
import hashlib
import importlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import comfy.model_management as memory
import folder_paths
import pytest
import torch

from tests.faults.conftest import Run
from tests.faults.disks import Disk, small_disk
from tests.faults.reports import told
from tests.unit.hub import Hub, hub

__all__ = ["hub", "small_disk"]

NAME = "vae_transparent_encoder.safetensors"
HIDDEN = ".diaphane"


@pytest.fixture
def folder(hub: Hub, pack: ModuleType, layer_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty model folder. The hub has the stand-in encoder under the released name, and the catalogue knows its checksum."""
    part = f"{pack.__name__}.lib_layerdiffuse.weights"
    catalogue, fetch = importlib.import_module(f"{part}.catalogue"), importlib.import_module(f"{part}.fetch")
    hub.content = (layer_models / NAME).read_bytes()
    digest = hashlib.sha256(hub.content).hexdigest()
    files = [
        dataclasses.replace(file, repo="some/repo", revision="abc", size=len(hub.content), sha256=digest) if file.name == NAME else file
        for file in catalogue.CATALOGUE
    ]
    monkeypatch.setattr(catalogue, "CATALOGUE", tuple(files))
    monkeypatch.setattr(fetch, "_PAUSE", 0.01)
    # The stand-in is smaller than a usual piece; what comes before a cut is kept in whole pieces.
    monkeypatch.setattr(importlib.import_module(f"{part}.download"), "_CHUNK", 1 << 14)
    monkeypatch.setattr("tests.unit.hub.PATH", f"/some/repo/resolve/abc/{NAME}")
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "layer_model", ([str(tmp_path)], {".safetensors"}))
    return tmp_path


@pytest.fixture
def encode(run: Run, vae: Callable[[str], Any]) -> Callable[[], Any]:
    picture = torch.rand(1, 64, 64, 4, generator=torch.Generator().manual_seed(1))
    return lambda: run("DiaphaneVAEEncode", image=picture, vae=vae("SDXL"), family="auto", offset_scale=300.0)


def check_whole(hub: Hub, folder: Path) -> None:
    assert (folder / NAME).read_bytes() == hub.content
    assert not list((folder / HIDDEN).glob("*.partial"))


@pytest.fixture
def fails(hub: Hub, folder: Path, encode: Callable[[], Any]) -> Callable[..., None]:
    """fails(words): the node says them, nothing stands under the name, and the next run fetches and works."""

    def check(*words: str) -> None:
        told(encode, [NAME, "put it in", str(folder), "HF_ENDPOINT", *words])
        assert not (folder / NAME).exists()
        hub.always, hub.script = None, []
        assert encode()
        check_whole(hub, folder)

    return check


@pytest.mark.parametrize("tenths", range(10))
def test_cut_at_ten_places(hub: Hub, fails: Callable[..., None], tenths: int) -> None:
    hub.script, hub.always = [("cut", len(hub.content) * tenths // 10 + tenths)], ("cut", 0)
    fails("could not be reached or broke off", "Try again")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "refuses access"),
        (403, "refuses access"),
        (404, "not have it there any more"),
        (418, "HTTP 418"),
        (429, "HTTP 429"),
        (500, "trouble"),
        (503, "trouble"),
    ],
)
def test_refused(hub: Hub, fails: Callable[..., None], status: int, words: str) -> None:
    hub.always = ("status", status)
    fails(words)


@pytest.mark.parametrize("kind", ["shorter", "longer", "one bit", "a web page", "another file"])
def test_another_content(hub: Hub, folder: Path, encode: Callable[[], Any], layer_models: Path, kind: str) -> None:
    right = hub.content
    hub.content = {
        "shorter": right[:-1],
        "longer": right + b"!",
        "one bit": bytes([right[0] ^ 1]) + right[1:],
        "a web page": b"<html>please log in</html>",
        "another file": (layer_models / "layer_sd15_vae_transparent_encoder.safetensors").read_bytes(),
    }[kind]
    told(encode, [NAME, "not the released file and was deleted", hashlib.sha256(hub.content).hexdigest()])
    assert not (folder / NAME).exists() and not list((folder / HIDDEN).glob("*.partial"))
    hub.content = right
    assert encode()
    check_whole(hub, folder)


def test_a_mirror_that_is_down(fails: Callable[..., None], hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(Exception, match=r"could not be reached .* HF_ENDPOINT is http://127.0.0.1:9: check it"):
            fails()
    hub.always = ("cut", 0)
    fails("broke off")


def test_a_mirror(hub: Hub, folder: Path, encode: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.endpoint}/mirror/")
    assert encode()
    assert hub.paths == [f"/mirror/some/repo/resolve/abc/{NAME}"]
    check_whole(hub, folder)


def test_cancelled_at_every_moment(hub: Hub, folder: Path, encode: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time the artist has had enough a moment later; at last the file is there, and nothing was fetched twice."""
    asked = patience = 0

    def enough() -> None:
        nonlocal asked
        asked += 1
        if asked == patience:
            raise memory.InterruptProcessingException

    monkeypatch.setattr(memory, "throw_exception_if_processing_interrupted", enough)
    interrupted = 0
    for moment in range(1, 200):
        asked, patience = 0, moment
        hub.script = [("cut", 50_000)]
        try:
            encode()
        except memory.InterruptProcessingException:
            interrupted += 1
        if (folder / NAME).exists():
            break
    assert interrupted >= 2
    check_whole(hub, folder)
    monkeypatch.undo()
    positions = [int(found.removeprefix("bytes=").rstrip("-")) if found else 0 for found in hub.ranges]
    assert positions == sorted(positions)


def test_a_folder_has_the_name(hub: Hub, folder: Path, encode: Callable[[], Any]) -> None:
    (folder / NAME).mkdir()
    told(encode, [NAME, "there is a folder of that name", "Move it away"])
    assert not hub.paths
    (folder / NAME).rmdir()
    assert encode()
    check_whole(hub, folder)


def test_disk_full(hub: Hub, folder: Path, encode: Callable[[], Any], small_disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that says it has room and has none: a quota, or another program that was quicker."""
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 40))
    folder_paths.folder_names_and_paths["layer_model"][0][:] = [str(small_disk.folder)]
    with small_disk.full():
        told(encode, [NAME, small_disk.words_when_downloading, str(small_disk.folder)])
    assert not (small_disk.folder / NAME).exists()
    assert encode()
    check_whole(hub, small_disk.folder)


def test_disk_known_to_be_full(folder: Path, fails: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(folder)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
        with pytest.raises(Exception, match=r"0 MB free, .* MB are needed"):
            fails()


@pytest.fixture(autouse=True)
def _no_file_is_left_open() -> Iterator[None]:
    links = Path("/proc/self/fd")
    yield
    if links.is_dir():
        assert not [link for link in links.iterdir() if link.is_symlink() and ".partial" in str(link.readlink())]
