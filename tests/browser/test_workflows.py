"""The real frontend shows every bundled workflow, saves it unchanged, converts it as dev/workflow.py does, and runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dev import bundled
from dev.frontend import Frontend
from dev.server import ComfyServer
from dev.workflow import to_prompt

pytestmark = pytest.mark.browser

Json = dict[str, Any]


@pytest.mark.parametrize("name", bundled.names())
def test_loads_and_saves_unchanged(frontend: Frontend, name: str) -> None:
    workflow = bundled.read(name)
    before = len(frontend.console_errors)
    frontend.load(workflow, name)
    assert frontend.missing_nodes() == []
    assert frontend.console_errors[before:] == []
    assert _kept(frontend.saved()) == _kept(workflow)


@pytest.mark.parametrize("name", bundled.names())
def test_converts_as_this_projects_own_converter(frontend: Frontend, server: ComfyServer, name: str) -> None:
    workflow = bundled.read(name)
    frontend.load(workflow, name)
    assert frontend.prompt() == to_prompt(workflow, server.object_info())


@pytest.mark.parametrize("name", bundled.names())
def test_nodes_do_not_overlap(frontend: Frontend, name: str) -> None:
    frontend.load(bundled.read(name), name)
    boxes: dict[str, list[float]] = frontend.page.evaluate(
        "() => Object.fromEntries(app.rootGraphInternal.nodes.map(node => [`${node.title} ${node.id}`, [...node.getBounding()]]))"
    )
    overlaps = [(one, other) for one in boxes for other in boxes if one < other and _overlap(boxes[one], boxes[other])]
    assert overlaps == []


def test_runs_from_the_browser_and_shows_its_picture(frontend: Frontend, tmp_path: Path) -> None:
    workflow = bundled.on_stand_ins("transparent_sdxl")
    for node in workflow["nodes"]:
        if node["type"] == "EmptyLatentImage":
            node["widgets_values"][:2] = [192, 128]
        if node["type"] == "KSampler":
            node["widgets_values"][2] = 2
    ids = {node["type"]: str(node["id"]) for node in workflow["nodes"]}
    frontend.load(workflow)
    frontend.queue()
    pictures = frontend.pictures()
    assert pictures[ids["SaveImage"]] == [(192, 128)]
    assert pictures[ids["DiaphanePreview"]] == [(192, 128)]
    # Colours of the checkerboard and of the picture, not of an empty canvas.
    assert len(frontend.screenshot(tmp_path / "run.png").read_bytes()) > 50_000


def _kept(workflow: Json) -> Json:
    """What makes up a workflow, without the view and the versions that wrote it."""
    nodes = [{**node, "properties": _without_version(node["properties"])} for node in workflow["nodes"]]
    return {"nodes": nodes, "links": workflow["links"], "groups": workflow["groups"], "version": workflow["version"]}


def _without_version(properties: Json) -> Json:
    return {key: value for key, value in properties.items() if key not in ("ver", "cnr_id", "aux_id")}


def _overlap(one: list[float], other: list[float]) -> bool:
    return all(one[axis] < other[axis] + other[axis + 2] and other[axis] < one[axis] + one[axis + 2] for axis in (0, 1))
