"""The API format of every workflow here, as the real frontend gives it: `make prompts` writes tests/prompts/NAME.json.

Whatever runs a workflow without a browser reads these files (`bundled.prompt`). A browser test says when they are stale.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dev import bundled
from dev.comfyui import ROOT, SetupError
from dev.frontend import Frontend, FrontendError, Json, ensure_browser
from dev.server import ComfyServer, ServerError, staged

# A blueprint is one node, whose insides take part only as far as they are connected.
CONNECT = """() => {
    const graph = app.rootGraphInternal, [box] = graph.nodes
    const add = type => graph.add(LiteGraph.createNode(type))
    const give = (node, names) => names.forEach((name, slot) => node.connect(slot, box, box.findInputSlot(name)))
    give(add('DiaphaneMini'), ['model', 'clip', 'vae'])
    give(add('EmptyImage'), ['so_far'])
    give(add('SolidMask'), ['area'])
    box.outputs.forEach(({type}, slot) => box.connect(slot, add(type == 'IMAGE' ? 'SaveImage' : 'DiaphaneSaveLayers'), 0))
}"""


def sources() -> dict[str, Path]:
    """All workflows in UI format, by the names of their prompts."""
    folders = (bundled.FOLDER, bundled.BLUEPRINTS, ROOT / "tests" / "older_pack")
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.json"))}


def export(frontend: Frontend, path: Path) -> Json:
    """The prompt that the frontend makes of a workflow."""
    frontend.load(json.loads(path.read_text(encoding="utf-8")), path.stem)
    if path.parent == bundled.BLUEPRINTS:
        frontend.page.evaluate(CONNECT)
    return frontend.prompt()


def main() -> int:
    if ensure_browser() is None:
        print("No browser found. Install Chromium or Google Chrome, or set CHROME_BIN.", file=sys.stderr)
        return 1
    try:
        with staged("prompts-") as base, ComfyServer(base) as server, Frontend(server.url) as frontend:
            for name, path in sources().items():
                nodes = (f"{json.dumps(key)}: {json.dumps(node)}" for key, node in export(frontend, path).items())
                # One node a line, so that a diff shows which nodes have changed.
                (bundled.PROMPTS / f"{name}.json").write_text("{\n" + ",\n".join(nodes) + "\n}\n", encoding="utf-8")
    except (SetupError, ServerError, FrontendError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
