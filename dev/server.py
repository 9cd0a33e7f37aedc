"""A running ComfyUI and a client for it: what live tests and the demo share.

with staged("example-") as base, ComfyServer(base) as server:
    history = server.queue(prompt)
    images = server.outputs(history)
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import websocket

from dev import comfyui
from dev.results import History, WorkflowError, judged, refusal
from dev.steps import link_directory, remove_link

Json = dict[str, Any]
Progress = Callable[[str, float, float], None]

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# subprocess.CREATE_NEW_PROCESS_GROUP, which only Windows defines.
NEW_GROUP = 0x200
PACKS = {comfyui.PACK: comfyui.ROOT}
STAND_INS = {"stand_ins": comfyui.ROOT / "dev" / "stand_ins"}
START_TIMEOUT = 180  # seconds
FOLDERS = ("custom_nodes", "input", "models", "output", "temp", "user")


class ServerError(Exception):
    """The server does not start, has died or does not answer; the message ends with the last lines of its log."""


def stage(base: Path, packs: Mapping[str, Path]) -> Path:
    """Makes `base` a base directory with its own empty models, input and output, and links to the packs under their names."""
    for folder in FOLDERS:
        (base / folder).mkdir(parents=True, exist_ok=True)
    for name, path in packs.items():
        link_directory(path, base / "custom_nodes" / name)
    return base


def unstage(base: Path) -> None:
    """Removes a base directory that stage() made, without following its links."""
    for link in (base / "custom_nodes").iterdir():
        remove_link(link)
    shutil.rmtree(base, ignore_errors=True)


@contextlib.contextmanager
def staged(prefix: str, packs: Mapping[str, Path] = PACKS, *, stand_ins: bool = False) -> Iterator[Path]:
    """A new base directory under .comfyui/stages, from `with` to the end of the block. stand_ins: with their nodes and files, too."""
    stages = comfyui.HOME / "stages"
    stages.mkdir(parents=True, exist_ok=True)
    base = Path(tempfile.mkdtemp(prefix=prefix, dir=stages))
    try:
        stage(base, {**packs, **STAND_INS} if stand_ins else packs)
        if stand_ins:
            from dev.stand_ins.weights import write_all

            write_all(base / "models")
        yield base
    finally:
        unstage(base)


class ComfyServer:
    """ComfyUI in a process of its own, from `with` to the end of the block.

    It runs on the GPU if torch finds one. What it writes goes to server.log in the base directory, `log`.
    """

    def __init__(
        self,
        base_directory: Path,
        *,
        extra_args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ):
        self.base_directory = base_directory.resolve()
        self.log = self.base_directory / "server.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.installation = comfyui.locate()
        self._extra_args = list(extra_args)
        self._env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None

    # --- life ---------------------------------------------------------------------------------------------------------------------------

    def __enter__(self) -> ComfyServer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def command(self) -> list[str]:
        database = self.base_directory / "user" / "comfyui.db"
        command = [str(self.installation.python), "-u", str(self.installation.tree / "main.py"), "--port", str(self.port)]
        command += ["--base-directory", str(self.base_directory), "--database-url", f"sqlite:///{database.as_posix()}"]
        command += ["--disable-auto-launch", "--disable-api-nodes"]
        if not self.installation.has_gpu() and "--cpu" not in self._extra_args:
            command.append("--cpu")
        return command + self._extra_args

    def start(self) -> None:
        """Starts the process and waits until it answers. ServerError if it dies or takes longer than START_TIMEOUT."""
        for folder in FOLDERS:
            (self.base_directory / folder).mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.base_directory,
                # Threads that spin while they wait would take the cores from whoever shares this machine.
                env={**self.installation.server_environment(), "PYTHONUTF8": "1", "OMP_WAIT_POLICY": "PASSIVE", **self._env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A group of its own, so that Ctrl-C at the terminal reaches us first and stop() decides.
                start_new_session=os.name != "nt",
                creationflags=NEW_GROUP if os.name == "nt" else 0,
            )
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            # To be told to end is no reason to leave a server behind: unwind as for Ctrl-C.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            self._check_alive("ComfyUI ended while starting")
            with contextlib.suppress(OSError, ValueError):
                self._request("/system_stats", timeout=5)
                return
            if time.monotonic() > deadline:
                raise ServerError(f"ComfyUI does not answer {START_TIMEOUT} s after its start.\n{self.log_tail(40)}")
            time.sleep(0.2)

    def stop(self, patience: float = 10) -> None:
        """Ends the process and every process that it has started; returns when they are gone."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
        if os.name != "nt":
            # The group outlives its leader if a node has left children behind.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        elif process.poll() is None:
            process.kill()
        process.wait()

    def _check_alive(self, message: str) -> None:
        if self._process is None:
            raise ServerError("The server is not running; use it inside its `with` block.")
        status = self._process.poll()
        if status is not None:
            raise ServerError(f"{message} (exit status {status}). The end of {self.log}:\n{self.log_tail(40)}")

    def process(self) -> psutil.Process:
        """The server's process: what it holds in memory, its threads."""
        self._check_alive("ComfyUI has ended")
        assert self._process is not None
        return psutil.Process(self._process.pid)

    def log_tail(self, lines: int = 40) -> str:
        if not self.log.is_file():
            return ""
        text = COLOURS.sub("", self.log.read_text(encoding="utf-8", errors="replace"))
        return "\n".join(text.splitlines()[-lines:])

    # --- requests -----------------------------------------------------------------------------------------------------------------------

    def get(self, path: str) -> Any:
        """The JSON that the server answers to GET path."""
        return self._request(path)

    def post(self, path: str, body: Json) -> Any:
        """The JSON that the server answers to POST path, None if it answers nothing. urllib's HTTPError for a refusal."""
        return self._request(path, body)

    def _request(self, path: str, body: Json | None = None, timeout: float = 60) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        # No proxy: the address is this machine's own.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=timeout) as answer:
            content = answer.read()
        return json.loads(content) if content else None

    def object_info(self) -> Json:
        """Every node type that the server knows, with its inputs and outputs."""
        return self.get("/object_info")

    def interrupt(self) -> None:
        """Asks the server to stop what it is running; queue() then raises WorkflowInterrupted."""
        self.post("/interrupt", {})

    def free(self, unload_models: bool = True, free_memory: bool = True) -> None:
        """Asks the server to unload models and to forget cached results. It does so between prompts: returns before it is done."""
        self.post("/free", {"unload_models": unload_models, "free_memory": free_memory})

    # --- prompts ------------------------------------------------------------------------------------------------------------------------

    def queue(self, prompt: Json, on_progress: Progress | None = None, timeout: float = 600, workflow: Json | None = None) -> History:
        """Runs a prompt in API format to its end.

        on_progress(node id, value, max) is called for each step that a node reports. `workflow` is what the frontend would embed in images.
        Raises WorkflowError (refused or failed), WorkflowInterrupted, TimeoutError (the prompt is then cancelled) or ServerError.
        """
        self._check_alive("ComfyUI has ended")
        client = uuid.uuid4().hex
        address = f"ws://127.0.0.1:{self.port}/ws?clientId={client}"
        connection = websocket.create_connection(address, timeout=30, http_no_proxy=["127.0.0.1"])
        try:
            prompt_id = self._submit(prompt, client, workflow)
            try:
                self._follow(connection, prompt_id, on_progress, time.monotonic() + timeout)
            except BaseException:
                self._cancel(prompt_id)
                raise
        finally:
            with contextlib.suppress(OSError, websocket.WebSocketException):
                connection.close()
        return judged(prompt_id, self._remembered(prompt_id) or {})

    def _submit(self, prompt: Json, client: str, workflow: Json | None) -> str:
        body: Json = {"prompt": prompt, "client_id": client}
        if workflow is not None:
            body["extra_data"] = {"extra_pnginfo": {"workflow": workflow}}
        try:
            answer = self.post("/prompt", body)
        except urllib.error.HTTPError as error:
            content = error.read().decode(errors="replace")
            try:
                answer = json.loads(content)
            except ValueError:
                raise WorkflowError(f"The server refuses the prompt: HTTP {error.code} {content[:500]}") from error
            raise refusal(answer, prompt) from error
        if answer["node_errors"]:
            # The server would run the branches that are valid; a tool wants all or nothing.
            self._cancel(answer["prompt_id"])
            raise refusal(answer, prompt)
        return answer["prompt_id"]

    def _follow(self, connection: websocket.WebSocket, prompt_id: str, on_progress: Progress | None, deadline: float) -> None:
        connection.settimeout(1)
        listening = True
        while self._remembered(prompt_id) is None:
            while listening:
                try:
                    message = connection.recv()
                except websocket.WebSocketTimeoutException:
                    break
                except (OSError, websocket.WebSocketException):
                    listening = False
                    break
                # Pictures of the preview come as bytes.
                event = json.loads(message) if isinstance(message, str) and message else {}
                data = event.get("data", {})
                if data.get("prompt_id") == prompt_id:
                    if event["type"] == "progress" and on_progress is not None:
                        on_progress(str(data["node"]), data["value"], data["max"])
                    if event["type"] in ("execution_error", "execution_interrupted", "execution_success"):
                        break
                if time.monotonic() > deadline:
                    break
            self._check_alive("ComfyUI ended while running a prompt")
            if time.monotonic() > deadline:
                raise TimeoutError(f"The prompt was not done in time. The end of {self.log}:\n{self.log_tail(20)}")
            time.sleep(0.01 if listening else 0.5)

    def _remembered(self, prompt_id: str) -> Json | None:
        try:
            return self.get(f"/history/{urllib.parse.quote(prompt_id)}").get(prompt_id)
        except OSError:
            self._check_alive("ComfyUI ended while running a prompt")
            raise

    def _cancel(self, prompt_id: str) -> None:
        with contextlib.suppress(OSError, ServerError):
            self.post("/queue", {"delete": [prompt_id]})
            self.post("/interrupt", {"prompt_id": prompt_id})

    def outputs(self, history: History) -> list[Path]:
        """The files that a prompt has written (saved and previewed images, PSD, ...), in the order of the node ids, each once."""
        found: dict[Path, None] = {}
        for node in sorted(history.outputs, key=lambda node: (len(node), node)):
            for items in history.outputs[node].values():
                for item in items if isinstance(items, list) else []:
                    if isinstance(item, dict) and item.get("filename") and item.get("type") in ("output", "temp"):
                        path = (self.base_directory / item["type"] / item.get("subfolder", "") / item["filename"]).resolve()
                        if path.is_relative_to(self.base_directory):
                            found[path] = None
        return list(found)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
