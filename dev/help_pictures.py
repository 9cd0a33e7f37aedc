"""Pictures for the help pages: every node in a graph, as the real frontend draws it. `make help-pictures`

A node is shown with its neighbours in the first bundled workflow that uses it, or else inside the first blueprint there. The pictures go
to web/docs/pictures/ID.webp; the pages show them under "Wiring". `make help-pictures ARGS="ID ..."` draws those only.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from dev import bundled, comfyui
from dev.frontend import Frontend, FrontendError, ensure_browser
from dev.server import ComfyServer, ServerError, staged

Json = dict[str, Any]

HELP = comfyui.ROOT / "web" / "docs"
FOLDER = HELP / "pictures"
SCALE = 0.75
# Between columns and between the nodes of a column.
GAP_X, GAP_Y, TITLE = 70, 50, 30
# A picture belongs into the graph at its right or left; what it shows is no part of the lesson.
LOWEST = {"SaveImage": 80, "DiaphanePreview": 130, "PreviewImage": 60, "LoadImage": 330, "DiaphaneSaveLayers": 180}
LOWEST |= {"DiaphaneSaveSheet": 280, "DiaphaneSaveAnimation": 160, "DiaphaneComposite": 160}


def main() -> int:
    if ensure_browser() is None:
        print("No browser found. Install Chromium or Google Chrome, or set CHROME_BIN.", file=sys.stderr)
        return 1
    try:
        draw_all(sys.argv[1:] or sorted(page.stem for page in HELP.glob("*.md")))
    except (comfyui.SetupError, ServerError, FrontendError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def draw_all(node_types: Sequence[str]) -> None:
    with staged("help-") as base:
        bundled.name_models(base / "models")
        bundled.draw_cut_out(base / "input" / bundled.EXAMPLE, 128, 96)
        bundled.draw_document(base / "input" / bundled.DOCUMENT, 128, 96)
        with ComfyServer(base) as server, Frontend(server.url) as frontend:
            for node_type in node_types:
                workflow = excerpt(node_type)
                if workflow is None:
                    print(f"{node_type}: no workflow uses it", flush=True)
                    continue
                path = draw(frontend, node_type, workflow)
                print(f"{path.relative_to(comfyui.ROOT)}: {path.stat().st_size / 1000:.0f} kB", flush=True)


def draw(frontend: Frontend, node_type: str, workflow: Json) -> Path:
    """Saves the picture of one node."""
    frontend.load(workflow)
    path = FOLDER / f"{node_type}.webp"
    with Image.open(frontend.screenshot(path.with_suffix(".png"), scale=SCALE)) as picture:
        picture.convert("RGB").save(path, lossless=True, quality=100, method=6)
    path.with_suffix(".png").unlink()
    return path


def excerpt(node_type: str) -> Json | None:
    """The node and its neighbours out of the smallest workflow that uses it, put close together; None if no workflow does."""
    workflows = sorted((bundled.read(name) for name in bundled.names()), key=lambda workflow: len(workflow["nodes"]))
    blueprints = [_as_workflow(graph) for workflow in workflows for graph in workflow.get("definitions", {}).get("subgraphs", [])]
    for workflow in [*workflows, *blueprints]:
        found = [node for node in workflow["nodes"] if node["type"] == node_type]
        if found:
            # The one that shows best what it is given.
            return _around(max(found, key=lambda node: sum(link[3] == node["id"] for link in workflow["links"])), workflow)
    return None


def _as_workflow(graph: Json) -> Json:
    """A blueprint as a workflow of its own, without the links to the box around it."""
    ids = {node["id"] for node in graph["nodes"]}
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    links = [[link[name] for name in names] for link in graph["links"] if {link["origin_id"], link["target_id"]} <= ids]
    last = {"last_node_id": max(ids), "last_link_id": max(link[0] for link in links)}
    return {**last, "nodes": graph["nodes"], "links": links, "groups": [], "config": {}, "extra": {}, "version": 0.4}


def _around(node: Json, workflow: Json) -> Json:
    near = [link for link in workflow["links"] if node["id"] in (link[1], link[3])]
    before = dict.fromkeys(link[1] for link in near if link[3] == node["id"])
    after = dict.fromkeys(link[3] for link in near if link[1] == node["id"])
    kept = {link[0] for link in near}
    nodes = {item["id"]: copy.deepcopy(item) for item in workflow["nodes"]}
    # Under its own name, whatever the workflow calls it.
    nodes[node["id"]].pop("title", None)
    columns = [[nodes[item] for item in ids] for ids in (before, [node["id"]], after) if ids]
    left = 0.0
    for column in columns:
        top = 0.0
        for item in column:
            item["size"] = [item["size"][0], min(item["size"][1], LOWEST.get(item["type"], item["size"][1]))]
            item["pos"] = [left, top]
            top += item["size"][1] + TITLE + GAP_Y
        left += max(item["size"][0] for item in column) + GAP_X
    shown = [item for column in columns for item in column]
    for item in shown:
        for entry in item.get("inputs") or []:
            entry["link"] = entry["link"] if entry.get("link") in kept else None
        for entry in item.get("outputs") or []:
            entry["links"] = [link for link in entry.get("links") or [] if link in kept]
    return {**workflow, "nodes": shown, "links": near, "groups": [], "extra": {}}  # without reroutes


if __name__ == "__main__":
    sys.exit(main())
