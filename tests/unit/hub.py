"""A hub on 127.0.0.1 that cuts, lies, redirects and dies on demand, and what the tests of downloads ask of it."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
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
