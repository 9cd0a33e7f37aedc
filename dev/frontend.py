"""ComfyUI's own frontend in a headless browser: what browser tests and thumbnails share.

with ComfyServer(base) as server, Frontend(server.url) as frontend:
    frontend.load(workflow)
    prompt = frontend.prompt()
    frontend.queue()
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dev.comfyui import HOME, PINS
from dev.debian import ensure
from dev.steps import digest, only_one_builder, stamped_step, tool

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Page, Playwright, Route, ViewportSize

Json = dict[str, Any]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--enable-unsafe-swiftshader",  # ComfyUI's layer editor draws by WebGL
]
# As after the first visit, with nothing over the graph, and strict about what it loads.
SETTINGS: Json = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Validation.Workflows": True,
    "Comfy.Workflow.Persist": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Graph.CanvasMenu": False,
}
# The frontend's own complaints: files that a fresh installation has not yet, sizes of models that it asks the internet for.
NOISE = ("Failed to load resource", "graph accessed before initialization", "Content Security Policy")
SIZE: ViewportSize = {"width": 1600, "height": 1000}
MARGIN = 24


class FrontendError(Exception):
    """The frontend does not start, refuses a workflow or fails to run it."""


# --- the browser ------------------------------------------------------------------------------------------------------------------------


def find_browser() -> Path | None:
    """The browser to drive: CHROME_BIN if set, else Chromium or Chrome where systems have them. None if there is none that starts."""
    named = os.environ.get("CHROME_BIN")
    found = [named] if named else [shutil.which(name) for name in NAMES] + [place for place in PLACES if Path(place).is_file()]
    return next((Path(path) for path in found if path and _starts(path)), None)


@functools.cache
def _starts(path: str) -> bool:
    # A package that only points to another package manager leaves a command that does nothing.
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run([path, "--version"], capture_output=True, timeout=60, check=False).returncode == 0
    return False


def ensure_browser() -> Path | None:
    """The browser to drive, installed first (Debian's Chromium) if there is none and the machine allows it; None if it does not.

    Raises SetupError if the installation fails.
    """
    return ensure(find_browser, "chromium", "CHROME_BIN")


def ensure_frontend(version: str) -> Path:
    """The files of a frontend that PINS names, for ComfyUI's --front-end-root; fetched first if they are not there.

    Raises SetupError if that fails.
    """
    folder, pin = HOME / "frontends" / version, PINS / f"frontend-{version}.txt"
    options = ["--no-deps", "--require-hashes", "--upgrade", "--target", str(folder)]
    command = [sys.executable, "-m", "pip", "install", *options, "-r", str(pin)]
    with only_one_builder(HOME):
        stamped_step(f"frontend {version}", folder / ".diaphane-frontend", digest(pin.read_bytes()), partial(tool, *command))
    return folder / "comfyui_frontend_package" / "static"


# --- the frontend -----------------------------------------------------------------------------------------------------------------------


class Frontend:
    """The frontend of a running server, from `with` to the end of the block.

    `settings` are the frontend's own, by their ids, for this visit only.
    """

    def __init__(self, url: str, *, settings: Json | None = None):
        self.url = url.rstrip("/")
        self.settings = {**SETTINGS, **(settings or {})}
        self.console_errors: list[str] = []
        self.page: Page
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Frontend:
        try:
            self.open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def open(self) -> None:
        """Starts the browser and waits until the frontend can load workflows. FrontendError if it does not get there."""
        from playwright.sync_api import Error, sync_playwright

        executable = find_browser()
        if executable is None:
            raise FrontendError("No browser found. Install Chromium or Google Chrome, or name one: CHROME_BIN=/path/to/it.")
        playwright: Playwright = self._stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=str(executable), headless=True, args=ARGUMENTS)
        self._stack.callback(browser.close)
        self.page = page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(90_000)
        page.on("console", self._remember)
        page.on("pageerror", lambda error: self.console_errors.append(f"uncaught: {error}"))
        page.route(lambda address: not address.startswith(self.url), lambda route: route.abort())
        page.route("**/api/settings", self._answer_settings)
        try:
            page.goto(self.url)
            page.wait_for_function(
                """() => window.app?.vueAppReady && app.rootGraphInternal && app.extensionManager?.workflow?.activeWorkflow
                    && !document.querySelector('#splash-loader')"""
            )
        except Error as error:
            raise FrontendError(f"The frontend at {self.url} does not start: {error}\n" + "\n".join(self.console_errors)) from error

    def _answer_settings(self, route: Route) -> None:
        if route.request.method != "GET":
            return route.continue_()
        answer = route.fetch()
        return route.fulfill(response=answer, body=json.dumps({**answer.json(), **self.settings}))

    def _remember(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not any(noise in message.text for noise in NOISE):
            self.console_errors.append(f"{message.text} ({message.location.get('url', '')})")

    def load(self, workflow: Json, name: str = "test") -> None:
        """Opens a workflow in UI format. FrontendError if the frontend finds that it is not well-formed."""
        self.page.evaluate("([workflow, name]) => app.loadGraphData(workflow, true, true, name)", [workflow, name])
        self.settle()
        # What the frontend has to say after loading (models that are missing, say) lies over the graph.
        faults = [text for text in self.page.locator("[role=alert]:visible").all_inner_texts() if "Validation error" in text]
        for _ in range(self.page.locator("[role=dialog]:visible").count()):
            self.page.keyboard.press("Escape")
        self.page.evaluate("() => { const { toast } = app.extensionManager; (toast.dismissAll ?? toast.removeAll)() }")
        self.settle()
        if faults:
            raise FrontendError("The frontend finds fault with the workflow: " + " ".join(faults))

    def settle(self, frames: int = 6) -> None:
        """Waits until the frontend has drawn a few times."""
        self.page.evaluate(
            """async count => {
                for (let n = 0; n < count; n++) {
                    app.canvas.setDirty(true, true)
                    await new Promise(done => requestAnimationFrame(done))
                }
                await new Promise(done => setTimeout(done, 150))
            }""",
            frames,
        )

    def saved(self) -> Json:
        """The workflow as the frontend saves it."""
        return self._graph_to_prompt("workflow")

    def prompt(self) -> Json:
        """The prompt in API format that Run would send, without the packs and versions that newer frontends note beside the titles."""
        nodes = self._graph_to_prompt("output")
        return {key: node | {"_meta": {"title": node["_meta"]["title"]}} for key, node in nodes.items()}

    def _graph_to_prompt(self, part: str) -> Json:
        # As text: on the way here, what is undefined would become null.
        return json.loads(self.page.evaluate("async part => JSON.stringify((await app.graphToPrompt())[part])", part))

    def missing_nodes(self) -> list[str]:
        """Types of nodes in the workflow that the frontend does not know."""
        return self.page.evaluate(
            """() => {
                const missing = app.rootGraphInternal.nodes.map(node => node.type).filter(type => !LiteGraph.registered_node_types[type])
                return [...new Set(missing)].sort()
            }"""
        )

    def pictures(self) -> dict[str, list[tuple[int, int]]]:
        """Sizes of the pictures that nodes show, by node id."""
        shown = self.page.evaluate(
            """async () => {
                const shown = {}
                for (const [id, output] of Object.entries(app.nodeOutputs ?? {})) {
                    const sizes = []
                    for (const item of output.images ?? []) {
                        const picture = new Image()
                        picture.src = app.api.apiURL('/view?' + new URLSearchParams(item))
                        await picture.decode()
                        sizes.push([picture.naturalWidth, picture.naturalHeight])
                    }
                    if (sizes.length) shown[id] = sizes
                }
                return shown
            }"""
        )
        return {node: [(width, height) for width, height in sizes] for node, sizes in shown.items()}

    def queue(self, timeout: float = 300) -> None:
        """Presses Run and waits for the end. FrontendError if the server refuses the prompt or a node fails."""
        self.page.evaluate(
            """() => {
                window.ended = null
                const watch = (event, verdict) => app.api.addEventListener(event, ({detail}) => { window.ended ??= verdict(detail) })
                watch('execution_success', () => 'done')
                watch('execution_error', detail => `${detail.node_type}: ${detail.exception_message}`)
                watch('execution_interrupted', () => 'interrupted')
            }"""
        )
        self.page.locator("[data-testid=queue-button]").first.click()
        deadline = time.monotonic() + timeout
        while True:
            ended = self.page.evaluate(
                "() => window.ended ?? (Object.keys(app.lastNodeErrors ?? {}).length ? JSON.stringify(app.lastNodeErrors) : null)"
            )
            if ended == "done":
                return self.settle()
            if ended:
                raise FrontendError(f"The run failed: {ended}")
            if time.monotonic() > deadline:
                raise FrontendError(f"The run was not done after {timeout:.0f} s.")
            time.sleep(0.1)

    def screenshot(self, path: Path, scale: float = 1.0) -> Path:
        """Saves a PNG of the whole graph and nothing else."""
        left, top, width, height = self.bounds()
        self.page.set_viewport_size({"width": int(width * scale) + 2 * MARGIN, "height": int(height * scale) + 2 * MARGIN})
        self._focus_mode(True)
        self.page.evaluate(
            """([left, top, scale, margin]) => {
                app.canvas.deselectAll()
                app.canvas.ds.scale = scale
                app.canvas.ds.offset = [margin / scale - left, margin / scale - top]
            }""",
            [left, top, scale, MARGIN],
        )
        self.settle(12)
        self.page.screenshot(path=str(path), style=".pi-bars { display: none }")
        self._focus_mode(False)
        self.page.set_viewport_size(SIZE)
        self.settle()
        return path

    def bounds(self) -> tuple[float, float, float, float]:
        """Left, top, width and height of all nodes, with their titles, and groups."""
        left, top, right, bottom = self.page.evaluate(
            """() => {
                const nodes = app.rootGraphInternal.nodes.map(node => [...node.getBounding()])
                const groups = app.rootGraphInternal.groups.map(group => [...group._bounding])
                const boxes = [...nodes, ...groups]
                return [
                    Math.min(...boxes.map(box => box[0])), Math.min(...boxes.map(box => box[1])),
                    Math.max(...boxes.map(box => box[0] + box[2])), Math.max(...boxes.map(box => box[1] + box[3])),
                ]
            }"""
        )
        return left, top, right - left, bottom - top

    def _focus_mode(self, wanted: bool) -> None:
        self.page.evaluate("wanted => { app.extensionManager.focusMode = wanted }", wanted)
