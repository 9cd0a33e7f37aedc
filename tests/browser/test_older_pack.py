"""Workflows made for the older pack open in the real frontend with every node, link and value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dev.frontend import Frontend

pytestmark = pytest.mark.browser

WORKFLOWS = {path.stem: path for path in sorted((Path(__file__).parents[1] / "older_pack").glob("*.json"))}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_opens_with_every_node_and_value(frontend: Frontend, name: str) -> None:
    workflow: dict[str, Any] = json.loads(WORKFLOWS[name].read_text(encoding="utf-8"))
    before = len(frontend.console_errors)
    frontend.load(workflow, name)
    assert frontend.missing_nodes() == []
    assert frontend.console_errors[before:] == []
    saved = {node["id"]: node for node in frontend.saved()["nodes"]}
    assert {node_id: node["type"] for node_id, node in saved.items()} == {node["id"]: node["type"] for node in workflow["nodes"]}
    for node in workflow["nodes"]:
        assert saved[node["id"]].get("widgets_values", [])[: len(node.get("widgets_values", []))] == node.get("widgets_values", [])
