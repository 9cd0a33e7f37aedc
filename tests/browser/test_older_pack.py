"""Workflows of before keep their meaning in the real frontend: those made for the older pack, those with Place Layer as it was at first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dev.frontend import Frontend

pytestmark = pytest.mark.browser

Json = dict[str, Any]

WORKFLOWS = {path.stem: path for path in sorted((Path(__file__).parents[1] / "older_pack").glob("*.json"))}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_opens_with_every_node_and_value(frontend: Frontend, name: str) -> None:
    workflow: Json = json.loads(WORKFLOWS[name].read_text(encoding="utf-8"))
    before = len(frontend.console_errors)
    frontend.load(workflow, name)
    assert frontend.missing_nodes() == []
    assert frontend.console_errors[before:] == []
    saved = {node["id"]: node for node in frontend.saved()["nodes"]}
    assert {node_id: node["type"] for node_id, node in saved.items()} == {node["id"]: node["type"] for node in workflow["nodes"]}
    for node in workflow["nodes"]:
        assert saved[node["id"]].get("widgets_values", [])[: len(node.get("widgets_values", []))] == node.get("widgets_values", [])


# --- Place Layer moved whole pictures before it had `moves` -----------------------------------------------------------------------------

FIRST_WIDGETS = ["name", "mode", "opacity", "x", "y", "scale", "rotation"]
# Two of them, the second in a subgraph.
ADD = """() => {
    app.rootGraph.clear()
    const [one, other] = [0, 1].map(() => app.rootGraph.add(LiteGraph.createNode('DiaphanePlaceLayer')))
    other.pos = [500, 0]
    app.rootGraph.convertToSubgraph(new Set([other]))
}"""


def moves(frontend: Frontend) -> list[str]:
    return [node["inputs"]["moves"] for node in frontend.prompt().values() if node["class_type"] == "DiaphanePlaceLayer"]


def nodes(workflow: Json) -> list[Json]:
    graphs = [workflow, *workflow["definitions"]["subgraphs"]]
    return [node for graph in graphs for node in graph["nodes"] if node["type"] == "DiaphanePlaceLayer"]


def test_older_workflows_move_the_picture_new_nodes_the_object(frontend: Frontend) -> None:
    frontend.page.evaluate(ADD)
    assert moves(frontend) == ["object"] * 2
    workflow = frontend.saved()
    frontend.load(workflow, "new")
    assert moves(frontend) == ["object"] * 2

    assert len(nodes(workflow)) == 2
    for node in nodes(workflow):
        node["widgets_values"] = ["fox", "normal", 1, 40, -8, 0.5, 30]
        node.pop("widgets_values_named", None)
        node["inputs"] = [socket for socket in node["inputs"] if socket["name"] in ("image", "mask", *FIRST_WIDGETS)]
    frontend.load(workflow, "old")
    assert moves(frontend) == ["picture"] * 2
    sent = [node["inputs"] for node in frontend.prompt().values()]
    assert all((inputs["x"], inputs["y"], inputs["scale"], inputs["rotation"]) == (40, -8, 0.5, 30) for inputs in sent)
    frontend.load(frontend.saved(), "old, saved again")
    assert moves(frontend) == ["picture"] * 2
