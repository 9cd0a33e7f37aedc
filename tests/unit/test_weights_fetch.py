"""Downloads against a hub on 127.0.0.1 that cuts, lies, redirects and dies on demand."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lib_layerdiffuse.errors import DiaphaneError
from lib_layerdiffuse.weights import fetch
from lib_layerdiffuse.weights.catalogue import Family, Role, WeightFile

ROOT = Path(__file__).parents[2]
CONTENT = hashlib.shake_256(b"diaphane").digest(1_500_000)
PATH = "/some/repo/resolve/abc/layer.safetensors"


class Hub(ThreadingHTTPServer):
    """Serves CONTENT under PATH. `script` holds one instruction per request to come; without any, the request is served well.

    Instructions: ("cut", bytes), ("status", code), "redirect", "hang".
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.resumes = True
        self.always: object = None
        self.script: Sequence[object] = []
        self.ranges: list[str | None] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()
        self.go_on = threading.Event()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


def first_byte(asked: str | None) -> int:
    match = re.fullmatch(r"bytes=(\d+)-", asked or "")
    assert match, asked
    return int(match[1])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        hub = self.server
        with hub.lock:
            order, hub.script = (hub.script[0], hub.script[1:]) if hub.script else (hub.always, [])
            hub.paths.append(self.path)
            hub.ranges.append(self.headers["Range"])
            hub.headers.append({key.lower(): value for key, value in self.headers.items()})
        if order == "redirect":
            self.send_response(302)
            self.send_header("Location", "/cdn" + PATH)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        status = order[1] if isinstance(order, tuple) and order[0] == "status" else 200
        if status != 200 or not self.path.endswith(PATH):
            return self.answer(404 if status == 200 else status, b"no")
        start, extra = 0, {"X-Repo-Commit": "abc", "ETag": '"etag"'}
        if self.headers["Range"] and hub.resumes:
            start, status = first_byte(self.headers["Range"]), 206
            if start >= len(hub.content):
                return self.answer(416, b"", {"Content-Range": f"bytes */{len(hub.content)}"})
            extra["Content-Range"] = f"bytes {start}-{len(hub.content) - 1}/{len(hub.content)}"
        self.answer(status, hub.content[start:], extra, order)

    def answer(self, status: int, body: bytes, extra: dict[str, str] | None = None, order: object = None) -> None:
        self.send_response(status)
        for key, value in {**(extra or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if isinstance(order, tuple) and order[0] == "cut":
            self.wfile.write(body[: order[1]])
            self.close_connection = True
        elif order == "hang":
            self.wfile.write(body[:700_000])
            self.server.go_on.wait(20)
            self.wfile.write(body[700_000:])
        else:
            self.wfile.write(body)

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    monkeypatch.setattr(fetch, "_PAUSE", 0.01)
    yield server
    server.go_on.set()
    server.shutdown()
    thread.join()
    server.server_close()


def weight_file(size: int | None = len(CONTENT), sha256: str = hashlib.sha256(CONTENT).hexdigest()) -> WeightFile:
    return WeightFile("layer.safetensors", Family.SDXL, frozenset({Role.JOINT}), "some/repo", "abc", size, sha256, "none")


def partial_of(folder: Path, file: WeightFile) -> Path:
    return folder / ".diaphane" / f"{file.name}.{file.sha256[:12]}.partial"


def failure(file: WeightFile, folder: Path, *words: str) -> str:
    with pytest.raises(DiaphaneError) as caught:
        fetch.ensure(file, [folder])
    text = str(caught.value)
    for word in (file.name, file.url, f"put it in {folder}", *words):
        assert word in text, text
    assert not (folder / file.name).exists()
    return text


class Watch:
    """An on_progress that notes what it is told, and that nothing unfinished has the final name meanwhile."""

    def __init__(self, folder: Path, stop_at: int | None = None, raising: BaseException | None = None) -> None:
        self.target, self.stop_at, self.raising = folder / "layer.safetensors", stop_at, raising
        self.told: list[tuple[int, int]] = []
        self.threads: set[int] = set()

    def __call__(self, done: int, total: int) -> None:
        assert not self.target.exists()
        self.told.append((done, total))
        self.threads.add(threading.get_ident())
        if self.raising and self.stop_at is not None and done >= self.stop_at:
            raise self.raising


class Interrupt(BaseException):
    """Like ComfyUI's InterruptProcessingException."""


# a good day


def test_fresh_download(hub: Hub, tmp_path: Path) -> None:
    folder, watch = tmp_path / "models" / "layer_model", Watch(tmp_path / "models" / "layer_model")
    path = fetch.ensure(weight_file(), [folder], watch)
    assert path == folder / "layer.safetensors" and path.read_bytes() == CONTENT
    assert [done for done, _ in watch.told] == sorted(done for done, _ in watch.told)
    assert watch.told[-1] == (len(CONTENT), len(CONTENT))
    assert {total for _, total in watch.told} == {len(CONTENT)}
    assert watch.threads == {threading.get_ident()}
    assert hub.paths == [PATH] and hub.ranges == [None]
    assert {entry.name for entry in folder.iterdir()} == {"layer.safetensors", ".diaphane"}
    assert not list((folder / ".diaphane").glob("*.partial"))


def test_without_progress_and_without_known_size(hub: Hub, tmp_path: Path) -> None:
    assert fetch.ensure(weight_file(size=None), [tmp_path]).read_bytes() == CONTENT


def test_what_is_there_is_not_fetched(hub: Hub, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    (second / "mine").mkdir(parents=True)
    (second / "mine" / "layer.safetensors").write_bytes(CONTENT)
    assert fetch.ensure(weight_file(), [first, second]) == second / "mine" / "layer.safetensors"
    assert not first.exists() and not hub.paths


def test_redirects_are_followed_with_the_range(hub: Hub, tmp_path: Path) -> None:
    hub.script = ["redirect", ("cut", 1_000_000), "redirect"]
    assert fetch.ensure(weight_file(), [tmp_path]).read_bytes() == CONTENT
    assert hub.paths == [PATH, "/cdn" + PATH] * 2
    assert hub.ranges[3] is not None


def test_no_token_leaves_the_machine(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch.ensure(weight_file(), [tmp_path])
    assert "authorization" not in hub.headers[0]


def test_mirror_is_read_at_the_time_of_use(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.endpoint}/mirror/")
    assert weight_file().url == f"{hub.endpoint}/mirror{PATH}"
    fetch.ensure(weight_file(), [tmp_path])
    assert hub.paths == ["/mirror" + PATH]


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


SCRIPT = """
import os, sys, hashlib
sys.path.insert(0, {root!r})
from pathlib import Path
from lib_layerdiffuse.weights.catalogue import Family, Role, WeightFile
from lib_layerdiffuse.weights import fetch
file = WeightFile("layer.safetensors", Family.SDXL, frozenset({{Role.JOINT}}), "some/repo", "abc", {size}, {sha!r}, "none")
def on_progress(done, total):
    if {die} and done:
        os.kill(os.getpid(), {kill})
try:
    print(hashlib.sha256(fetch.ensure(file, [Path({folder!r})], on_progress).read_bytes()).hexdigest())
except Exception as error:
    print(type(error).__name__, error)
"""


def process(folder: Path, *, die: bool = False, **env: str) -> subprocess.Popen[str]:
    file = weight_file()
    kill = int(getattr(signal, "SIGKILL", signal.SIGTERM))
    code = SCRIPT.format(root=str(ROOT), size=file.size, sha=file.sha256, folder=str(folder), die=die, kill=kill)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ | env)


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


# a bad day


def test_wrong_hash(hub: Hub, tmp_path: Path) -> None:
    hub.content = CONTENT[:-1] + b"!"
    found = hashlib.sha256(hub.content).hexdigest()
    failure(weight_file(), tmp_path, "not the released file and was deleted", found, f"{weight_file().sha256} (1,500,000 bytes)")
    assert not partial_of(tmp_path, weight_file()).exists()
    hub.content = CONTENT
    assert fetch.ensure(weight_file(), [tmp_path]).read_bytes() == CONTENT
    assert hub.ranges[-1] is None


@pytest.mark.parametrize("content", [b"<html>please log in</html>", CONTENT + b"more"])
def test_wrong_size(hub: Hub, tmp_path: Path, content: bytes) -> None:
    hub.content = content
    failure(weight_file(), tmp_path, f"({len(content):,} bytes), expected", "(1,500,000 bytes)")
    assert not partial_of(tmp_path, weight_file()).exists()


def test_wrong_size_in_the_catalogue_does_not_reject_a_good_file(hub: Hub, tmp_path: Path) -> None:
    assert fetch.ensure(weight_file(size=len(CONTENT) + 5), [tmp_path]).read_bytes() == CONTENT
    shutil.rmtree(tmp_path)
    assert fetch.ensure(weight_file(size=7), [tmp_path]).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "refuses access (HTTP 401)"), (403, "refuses access (HTTP 403)"), (404, "does not have it there any more (HTTP 404)"),
     (429, "has trouble (HTTP 429)"), (500, "has trouble (HTTP 500)")],
)  # fmt: skip
def test_refusals(hub: Hub, tmp_path: Path, status: int, words: str) -> None:
    hub.always = ("status", status)
    failure(weight_file(), tmp_path, words, f"HF_ENDPOINT is {hub.endpoint}: check it")
    assert len(hub.paths) == 1


def test_hub_down(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.shutdown()
    hub.server_close()
    failure(weight_file(), tmp_path, "could not be reached")


def test_endpoint_that_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "mirror")
    failure(weight_file(), tmp_path, "could not be reached", "HF_ENDPOINT is mirror: check it")


def test_silent_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    hub.script, hub.always = ["hang"], ("cut", 0)
    failure(weight_file(), tmp_path, "broke off")
    assert partial_of(tmp_path, weight_file()).stat().st_size > 0


def test_offline(hub: Hub, tmp_path: Path) -> None:
    with process(tmp_path, HF_HUB_OFFLINE="1") as offline:
        text = offline.communicate(timeout=60)[0]
    assert text.startswith("DiaphaneError layer.safetensors (SDXL joint layers): HF_HUB_OFFLINE is set")
    assert weight_file().url in text and f"put it in {tmp_path}" in text and not hub.paths


def test_offline_with_the_file_there(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "layer.safetensors").write_bytes(CONTENT)
    with process(tmp_path, HF_HUB_OFFLINE="1") as offline:
        assert offline.communicate(timeout=60)[0].strip() == weight_file().sha256


def test_disk_too_small(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(DiaphaneError, match=r"has 1 MB free, 2 MB are needed"):
        fetch.ensure(weight_file(), [tmp_path])


def test_disk_fills_up_meanwhile(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, written = fetch._write, []

    def write(handle, data: bytes) -> None:
        if written:
            raise OSError(28, "No space left on device")
        written.append(whole(handle, data))

    monkeypatch.setattr(fetch, "_write", write)
    failure(weight_file(), tmp_path, f"the disk of {tmp_path} is full")
    monkeypatch.undo()
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    assert fetch.ensure(weight_file(), [tmp_path]).read_bytes() == CONTENT
    assert hub.ranges[1] is not None


def test_folder_that_is_not_writable(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    failure(weight_file(), tmp_path, "may not be written by this user (Permission denied). Change its permissions")


def test_folder_that_is_a_file(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("oops")
    with pytest.raises(DiaphaneError, match="could not be written"):
        fetch.ensure(weight_file(), [tmp_path / "models"])


def test_no_folder(hub: Hub) -> None:
    with pytest.raises(DiaphaneError, match=r"no folder to put layer\.safetensors in"):
        fetch.ensure(weight_file(), [])


# links


@pytest.mark.skipif(os.name == "nt", reason="links need privileges there")
def test_a_folder_may_itself_be_a_link(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "big disk").mkdir()
    (tmp_path / "models").symlink_to(tmp_path / "big disk")
    fetch.ensure(weight_file(), [tmp_path / "models"])
    assert (tmp_path / "big disk" / "layer.safetensors").read_bytes() == CONTENT


# locate


def test_locate_order(tmp_path: Path) -> None:
    file, first, second = weight_file(), tmp_path / "first", tmp_path / "second"
    assert fetch.locate(file, [tmp_path / "nowhere", first]) is None
    for place in (second, first / "b", first / "a", first / ".hidden", first / "a" / "deep"):
        place.mkdir(parents=True)
    (first / ".hidden" / file.name).touch()
    (first / "a" / "deep" / file.name).touch()
    (first / "Layer.safetensors.partial").touch()
    assert fetch.locate(file, [first, second]) is None
    for path in (second / file.name, first / "b" / file.name, first / "a" / file.name, first / file.name):
        path.touch()
        assert fetch.locate(file, [first, second]) == path


def test_a_folder_of_that_name_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "layer.safetensors").mkdir()
    assert fetch.locate(weight_file(), [tmp_path]) is None


def test_odd_size_is_said_once(hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "layer.safetensors"
    path.write_bytes(b"converted")
    with caplog.at_level(logging.WARNING, "diaphane"):
        assert fetch.ensure(weight_file(), [tmp_path]) == fetch.ensure(weight_file(), [tmp_path]) == path
    assert [record.getMessage() for record in caplog.records] == [f"{path} has 9 bytes, the released file 1500000: taken as it is."]


def test_importing_is_light() -> None:
    code = "import sys; import lib_layerdiffuse.weights.fetch; print({'huggingface_hub', 'filelock', 'torch'} & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "set()"
