"""The bundled workflows read in rows from left to right, in one window. Notes say where models come from; prompts are exported."""

from __future__ import annotations

from typing import Any

import pytest

from dev import bundled, export_prompts

Json = dict[str, Any]

each_workflow = pytest.mark.parametrize("name", bundled.names())


@each_workflow
def test_links_run_from_left_to_right_and_down_to_the_next_row(name: str) -> None:
    workflow = bundled.read(name)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    backwards = [
        f"{nodes[origin]['type']} -> {nodes[target]['type']}"
        for _, origin, _, target, *_ in workflow["links"]
        if nodes[origin]["pos"][0] + nodes[origin]["size"][0] > nodes[target]["pos"][0]
        and nodes[origin]["pos"][1] + nodes[origin]["size"][1] > nodes[target]["pos"][1]
    ]
    assert not backwards


@each_workflow
def test_fits_into_a_window_with_its_texts_shown(name: str) -> None:
    """The frontend opens a template at fit view, which leaves it three quarters of the window. Below a scale of 8/14 it shows no texts."""
    workflow = bundled.read(name)
    boxes = [(*node["pos"], *node["size"]) for node in workflow["nodes"]] + [group["bounding"] for group in workflow["groups"]]
    boxes += [(x - 10, y - 10, 20, 20) for x, y in (reroute["pos"] for reroute in workflow["extra"].get("reroutes", []))]
    left, top = (min(box[axis] for box in boxes) for axis in (0, 1))
    right, bottom = (max(box[axis] + box[axis + 2] for box in boxes) for axis in (0, 1))
    border = 2 * 10
    assert min(0.75 * 1600 / (right - left + border), 0.75 * 1000 / (bottom - top + border)) >= 8 / 14


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


def test_app_mode_offers_inputs_that_exist() -> None:
    apps = {name: app for name in bundled.names() if (app := bundled.read(name)["extra"].get("linearData"))}
    assert len(apps) >= 3
    for name, app in apps.items():
        prompt = bundled.prompt(name)
        assert all(widget in prompt[str(node)]["inputs"] for node, widget in app["inputs"])
        assert app["outputs"] and all(prompt[str(node)]["class_type"] == "SaveImage" for node in app["outputs"])


def test_each_has_an_exported_prompt() -> None:
    assert {path.stem for path in bundled.PROMPTS.iterdir()} == export_prompts.sources().keys(), "Run `make prompts`, delete what is left."
