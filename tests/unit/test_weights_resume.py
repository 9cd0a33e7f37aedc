"""Downloads that break off and go on, and several at once, against a hub that cuts on demand."""

# pyright: reportMissingImports=false
from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from lib_layerdiffuse.weights import fetch
from tests.unit.hub import CONTENT, Hub, Interrupt, Watch, failure, first_byte, hub, partial_of, process, weight_file

__all__ = ["hub"]


# going on


def test_cut_connection_is_resumed_at_once(hub: Hub, tmp_path: Path) -> None:
    hub.script = [("cut", 1_000_000), ("status", 503), ("cut", 300_000)]
    watch = Watch(tmp_path)
    assert fetch.ensure(weight_file(), [tmp_path], watch).read_bytes() == CONTENT
    asked = [first_byte(found) for found in hub.ranges[1:]]
    assert 0 < asked[0] <= 1_000_000 and asked[0] == asked[1] < asked[2]
    assert [done for done, _ in watch.told] == sorted(done for done, _ in watch.told)


def test_gives_up_when_nothing_more_comes_and_resumes_later(hub: Hub, tmp_path: Path) -> None:
    hub.script, hub.always = [("cut", 1_000_000)], ("cut", 0)
    failure(weight_file(), tmp_path, "Try again: what has come so far is kept", "HF_ENDPOINT")
    have = partial_of(tmp_path, weight_file()).stat().st_size
    assert 0 < have <= 1_000_000 and len(hub.ranges) == 3
    hub.always = None
    assert fetch.ensure(weight_file(), [tmp_path]).read_bytes() == CONTENT
    assert hub.ranges[-1] == f"bytes={have}-"


def test_server_that_cannot_resume(hub: Hub, tmp_path: Path) -> None:
    hub.resumes, hub.script = False, [("cut", 1_000_000)]
    watch = Watch(tmp_path)
    assert fetch.ensure(weight_file(), [tmp_path], watch).read_bytes() == CONTENT
    assert [done for done, _ in watch.told] == sorted(done for done, _ in watch.told)


def test_server_that_cannot_resume_and_always_cuts(hub: Hub, tmp_path: Path) -> None:
    hub.resumes, hub.always = False, ("cut", 1_000_000)
    failure(weight_file(), tmp_path, "broke off")
    assert len(hub.ranges) == 3


@pytest.mark.parametrize("raising", [Interrupt(), KeyboardInterrupt(), OSError("mine"), RuntimeError("mine")])
def test_interrupt_passes_through_and_resumes(hub: Hub, tmp_path: Path, raising: BaseException) -> None:
    hub.script = ["hang"]
    with pytest.raises(type(raising)) as caught:
        fetch.ensure(weight_file(), [tmp_path], Watch(tmp_path, stop_at=1, raising=raising))
    assert caught.value is raising
    hub.go_on.set()
    have = partial_of(tmp_path, weight_file()).stat().st_size
    assert 0 < have < len(CONTENT) and not (tmp_path / "layer.safetensors").exists()
    assert fetch.ensure(weight_file(), [tmp_path]).read_bytes() == CONTENT
    assert hub.ranges[1:] == [f"bytes={have}-"]


def test_interrupt_while_the_checksum_is_computed(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(Interrupt):
        fetch.ensure(weight_file(), [tmp_path], Watch(tmp_path, stop_at=len(CONTENT), raising=Interrupt()))
    assert fetch.ensure(weight_file(), [tmp_path]).read_bytes() == CONTENT
    assert len(hub.ranges) == 1  # complete already: nothing to ask


def test_complete_partial_of_unknown_size(hub: Hub, tmp_path: Path) -> None:
    file = weight_file(size=None)
    partial_of(tmp_path, file).parent.mkdir()
    partial_of(tmp_path, file).write_bytes(CONTENT)
    assert fetch.ensure(file, [tmp_path]).read_bytes() == CONTENT
    assert hub.ranges == [f"bytes={len(CONTENT)}-"]


def test_partial_that_is_too_long_is_begun_anew(hub: Hub, tmp_path: Path) -> None:
    file = weight_file()
    partial_of(tmp_path, file).parent.mkdir()
    partial_of(tmp_path, file).write_bytes(CONTENT + b"more")
    assert fetch.ensure(file, [tmp_path]).read_bytes() == CONTENT
    assert hub.ranges == [f"bytes={len(CONTENT) + 4}-", None]


def test_killed_process_leaves_a_resumable_partial_and_no_lock(hub: Hub, tmp_path: Path) -> None:
    hub.script = ["hang"]
    with process(tmp_path, die=True) as killed:
        killed.wait(60)
    hub.go_on.set()
    assert killed.returncode != 0
    have = partial_of(tmp_path, weight_file()).stat().st_size
    assert 0 < have < len(CONTENT)
    assert fetch.ensure(weight_file(), [tmp_path]).read_bytes() == CONTENT
    assert hub.ranges[1:] == [f"bytes={have}-"]


# two at once


def test_threads_share_one_download(hub: Hub, tmp_path: Path) -> None:
    hub.script = ["hang"]
    results: list[bytes] = []
    watches = [Watch(tmp_path) for _ in range(3)]
    threads = [
        threading.Thread(target=lambda watch=watch: results.append(fetch.ensure(weight_file(), [tmp_path], watch).read_bytes()))
        for watch in watches
    ]
    for thread in threads:
        thread.start()
    threading.Timer(0.5, hub.go_on.set).start()
    for thread in threads:
        thread.join()
    assert results == [CONTENT] * 3 and len(hub.paths) == 1
    assert all(watch.told for watch in watches)  # those that wait see the progress of the one that works


def test_processes_share_one_download(hub: Hub, tmp_path: Path) -> None:
    hub.script = ["hang"]
    running = [process(tmp_path) for _ in range(2)]
    threading.Timer(1.0, hub.go_on.set).start()
    assert [one.communicate(timeout=60)[0].strip() for one in running] == [weight_file().sha256] * 2
    assert len(hub.paths) == 1


def test_waiting_can_be_interrupted(hub: Hub, tmp_path: Path) -> None:
    hub.script = ["hang"]
    worker = threading.Thread(target=fetch.ensure, args=(weight_file(), [tmp_path]))
    worker.start()
    while not hub.paths:
        time.sleep(0.01)
    with pytest.raises(Interrupt):
        fetch.ensure(weight_file(), [tmp_path], Watch(tmp_path, stop_at=0, raising=Interrupt()))
    hub.go_on.set()
    worker.join()
    assert (tmp_path / "layer.safetensors").read_bytes() == CONTENT
