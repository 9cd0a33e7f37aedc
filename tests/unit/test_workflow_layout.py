"""The bundled workflows read from left to right, their notes say where the models come from and go, and each has its exported prompt."""

from __future__ import annotations

from typing import Any

import pytest

from dev import bundled, export_prompts

Json = dict[str, Any]

each_workflow = pytest.mark.parametrize("name", bundled.names())


@each_workflow
def test_links_run_from_left_to_right(name: str) -> None:
    workflow = bundled.read(name)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    backwards = [
        f"{nodes[origin]['type']} -> {nodes[target]['type']}"
        for _, origin, _, target, *_ in workflow["links"]
        if nodes[origin]["pos"][0] + nodes[origin]["size"][0] > nodes[target]["pos"][0]
    ]
    assert not backwards


@each_workflow
def test_every_node_but_the_note_is_in_a_group_with_a_title(name: str) -> None:
    workflow = bundled.read(name)

    def inside(node: Json, group: Json) -> bool:
        left, top, width, height = group["bounding"]
        (x, y), (w, h) = node["pos"], node["size"]
        return left <= x and top <= y and x + w <= left + width and y + h <= top + height

    loose = [
        node["type"]
        for node in workflow["nodes"]
        if node["type"] != "MarkdownNote" and not any(group["title"] and inside(node, group) for group in workflow["groups"])
    ]
    assert not loose


@each_workflow
def test_the_note_links_the_models_and_names_their_folders(name: str) -> None:
    workflow = bundled.read(name)
    [note] = [node for node in workflow["nodes"] if node["type"] == "MarkdownNote"]
    text = note["widgets_values"][0]
    for model in (model for node in workflow["nodes"] for model in node["properties"].get("models", [])):
        assert f"[{model['name']}]({model['url']}) in `models/{model['directory']}`" in text


def test_each_has_an_exported_prompt() -> None:
    assert {path.stem for path in bundled.PROMPTS.iterdir()} == export_prompts.sources().keys(), "Run `make prompts`, delete what is left."
