"""dev/workflow.py: from saved workflows to prompts, checked case by case against what the frontend's own conversion gives."""

from __future__ import annotations

from typing import Any

import pytest

from dev.workflow import UnknownNodesError, to_prompt

Json = dict[str, Any]

OBJECT_INFO: Json = {
    "Load": {
        "input": {"required": {"image": [["a.png", "b.png"], {"image_upload": True}]}},
        "input_order": {"required": ["image"]},
        "output": ["IMAGE", "MASK"],
        "display_name": "Load Image",
    },
    "Sample": {
        "input": {
            "optional": {"extra": ["STRING", {"default": "none"}]},
            "required": {
                "denoise": ["FLOAT", {"default": 1.0}],
                "model": ["MODEL"],
                "seed": ["INT", {"default": 0}],
                "sampler": [["euler", "heun"]],
            },
        },
        "input_order": {"required": ["model", "seed", "sampler", "denoise"], "optional": ["extra"]},
        "output": ["LATENT"],
    },
    "Model": {"input": {"required": {"name": ["COMBO", {"options": ["x", "y"]}]}}, "output": ["MODEL"]},
    "Patch": {"input": {"required": {"strength": ["FLOAT", {"default": 0.5}], "model": ["MODEL"]}}, "output": ["MODEL"]},
    "Text": {"input": {"required": {"text": ["STRING", {"dynamicPrompts": True}]}}, "output": ["CONDITIONING"]},
    "Plain": {"input": {"required": {"seed": ["INT", {"control_after_generate": False}], "points": ["CURVE", {}], "on": ["BOOLEAN", {}]}}},
    "Dynamic": {
        "input": {
            "required": {
                "mode": [
                    "COMFY_DYNAMICCOMBO_V3",
                    {
                        "options": [
                            {"key": "off", "inputs": {"required": {}}},
                            {"key": "on", "inputs": {"required": {"size": ["INT", {"default": 3}], "image": ["IMAGE"]}}},
                        ]
                    },
                ],
                "after": ["STRING", {}],
            }
        }
    },
    "Forced": {"input": {"required": {"count": ["INT", {"forceInput": True}], "name": ["STRING", {}]}}},
    "Save": {"input": {"required": {"images": ["IMAGE"], "prefix": ["STRING", {"default": "out"}]}}},
}


def node(number: int, kind: str, widgets: Any = None, inputs: list[Json] | None = None, **more: Any) -> Json:
    return {"id": number, "type": kind, "mode": 0, "inputs": inputs or [], "outputs": [], "widgets_values": widgets, **more}


def socket(name: str, kind: str, link: int | None, widget: bool = False) -> Json:
    return {"name": name, "type": kind, "link": link, **({"widget": {"name": name}} if widget else {})}


def convert(nodes: list[Json], links: list[list[Any]] | None = None, **more: Any) -> Json:
    return to_prompt({"nodes": nodes, "links": links or [], "version": 0.4, **more}, OBJECT_INFO)


def inputs_of(kind: str, widgets: Any) -> Json:
    return convert([node(1, kind, widgets)])["1"]["inputs"]


# --- widgets ----------------------------------------------------------------------------------------------------------------------------


def test_values_follow_the_servers_order_and_seeds_bring_a_control() -> None:
    values = inputs_of("Sample", [7, "randomize", "heun", 0.5, "more"])
    assert values == {"seed": 7, "sampler": "heun", "denoise": 0.5, "extra": "more"}


def test_missing_values_are_defaults() -> None:
    assert inputs_of("Sample", [7, "fixed"]) == {"seed": 7, "sampler": "euler", "denoise": 1.0, "extra": "none"}
    assert inputs_of("Model", None) == {"name": "x"}


def test_values_by_name() -> None:
    assert inputs_of("Sample", {"sampler": "heun", "seed": 3}) == {"seed": 3, "sampler": "heun", "denoise": 1.0, "extra": "none"}


def test_upload_button_is_no_input() -> None:
    assert inputs_of("Load", ["b.png", "image"]) == {"image": "b.png"}


def test_seed_may_go_without_control_and_lists_are_wrapped() -> None:
    assert inputs_of("Plain", [5, [[0, 0], [1, 1]], True]) == {"seed": 5, "points": {"__value__": [[0, 0], [1, 1]]}, "on": True}


def test_dynamic_combo_brings_the_inputs_of_its_choice() -> None:
    assert inputs_of("Dynamic", ["on", 8, "end"]) == {"mode": "on", "mode.size": 8, "after": "end"}
    assert inputs_of("Dynamic", ["off", "end"]) == {"mode": "off", "after": "end"}


def test_values_that_old_frontends_saved_for_forced_inputs_are_dropped() -> None:
    assert inputs_of("Forced", [12, "me"]) == {"name": "me"}
    assert inputs_of("Forced", ["me"]) == {"name": "me"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a {red|blue} vase", "a red vase"),
        ("{a {small|big} cat|dog}", "a small cat"),
        ("{only}", "only"),
        (r"\{kept|as it is\}", "{kept|as it is}"),
        ("vase // a note\nglass", "vase \nglass"),
        ("vase /* a\nnote */glass", "vase glass"),
        ("left {open|end", "left open"),
    ],
)
def test_choices_in_prompts_take_the_first_alternative(text: str, expected: str) -> None:
    assert inputs_of("Text", [text]) == {"text": expected}


# --- links ------------------------------------------------------------------------------------------------------------------------------


def test_links_and_titles() -> None:
    prompt = convert(
        [node(4, "Load", ["a.png", "image"]), node(9, "Save", ["x"], [socket("images", "IMAGE", 2)], title="Keep")],
        [[2, 4, 0, 9, 0, "IMAGE"]],
    )
    assert prompt["9"] == {"inputs": {"images": ["4", 0], "prefix": "x"}, "class_type": "Save", "_meta": {"title": "Keep"}}
    assert prompt["4"]["_meta"] == {"title": "Load Image"}


def test_schema_1_links() -> None:
    link = {"id": 2, "origin_id": 4, "origin_slot": 1, "target_id": 9, "target_slot": 0, "type": "IMAGE"}
    workflow = {
        "nodes": [node(4, "Load", ["a.png"]), node(9, "Save", ["x"], [socket("images", "IMAGE", 2)])],
        "links": [link],
        "version": 1,
    }
    assert to_prompt(workflow, OBJECT_INFO)["9"]["inputs"]["images"] == ["4", 1]


def test_linked_widget_keeps_its_place_among_the_values() -> None:
    nodes = [node(1, "Text", ["t"]), node(2, "Sample", [7, "fixed", "heun", 0.5, "e"], [socket("seed", "INT", 3, widget=True)])]
    assert convert(nodes, [[3, 1, 0, 2, 1, "INT"]])["2"]["inputs"] == {"seed": ["1", 0], "sampler": "heun", "denoise": 0.5, "extra": "e"}


def test_notes_are_dropped_and_reroutes_seen_through() -> None:
    nodes = [
        node(1, "Load", ["a.png"]),
        node(2, "Reroute", None, [socket("", "*", 10)]),
        node(3, "Reroute", None, [socket("", "*", 11)]),
        node(4, "Save", ["x"], [socket("images", "IMAGE", 12)]),
        node(5, "Note", ["words"]),
        node(6, "MarkdownNote", ["words"]),
    ]
    prompt = convert(nodes, [[10, 1, 0, 2, 0, "*"], [11, 2, 0, 3, 0, "*"], [12, 3, 0, 4, 0, "IMAGE"]])
    assert set(prompt) == {"1", "4"}
    assert prompt["4"]["inputs"]["images"] == ["1", 0]


def test_primitive_gives_its_value_also_through_a_reroute() -> None:
    nodes = [
        node(1, "PrimitiveNode", [99, "randomize"]),
        node(2, "Reroute", None, [socket("", "*", 10)]),
        node(3, "Sample", [7, "fixed"], [socket("seed", "INT", 11, widget=True)]),
    ]
    assert convert(nodes, [[10, 1, 0, 2, 0, "*"], [11, 2, 0, 3, 1, "INT"]])["3"]["inputs"]["seed"] == 99


def test_muted_nodes_are_dropped_with_the_links_from_them() -> None:
    nodes = [node(1, "Load", ["a.png"], mode=2), node(2, "Save", ["x"], [socket("images", "IMAGE", 5)])]
    assert convert(nodes, [[5, 1, 0, 2, 0, "IMAGE"]]) == {
        "2": {"inputs": {"prefix": "x"}, "class_type": "Save", "_meta": {"title": "Save"}}
    }


def test_bypassed_node_passes_on_the_input_of_the_outputs_type() -> None:
    nodes = [
        node(1, "Model", ["x"]),
        node(
            2,
            "Patch",
            [1.0],
            [socket("strength", "FLOAT", None, widget=True), socket("model", "MODEL", 5)],
            mode=4,
            outputs=[{"name": "MODEL", "type": "MODEL"}],
        ),
        node(3, "Sample", [7, "fixed"], [socket("model", "MODEL", 6)]),
    ]
    prompt = convert(nodes, [[5, 1, 0, 2, 1, "MODEL"], [6, 2, 0, 3, 0, "MODEL"]])
    assert set(prompt) == {"1", "3"}
    assert prompt["3"]["inputs"]["model"] == ["1", 0]


def test_bypassed_node_without_a_fitting_input_leaves_a_gap() -> None:
    nodes = [
        node(1, "Text", ["t"], mode=4, outputs=[{"name": "CONDITIONING", "type": "CONDITIONING"}]),
        node(2, "Save", ["x"], [socket("images", "IMAGE", 6)]),
    ]
    assert convert(nodes, [[6, 1, 0, 2, 0, "IMAGE"]])["2"]["inputs"] == {"prefix": "x"}


# --- subgraphs --------------------------------------------------------------------------------------------------------------------------


def subgraph() -> Json:
    """Model in, a patched model out; `strength` is a widget of the patch shown on the outside."""
    return {
        "id": "sub-1",
        "inputs": [{"name": "model", "type": "MODEL", "linkIds": [1]}, {"name": "strength", "type": "FLOAT", "linkIds": [2]}],
        "outputs": [{"name": "MODEL", "type": "MODEL", "linkIds": [3]}],
        "nodes": [node(7, "Patch", [0.25], [socket("model", "MODEL", 1), socket("strength", "FLOAT", 2, widget=True)])],
        "links": [
            {"id": 1, "origin_id": -10, "origin_slot": 0, "target_id": 7, "target_slot": 0, "type": "MODEL"},
            {"id": 2, "origin_id": -10, "origin_slot": 1, "target_id": 7, "target_slot": 1, "type": "FLOAT"},
            {"id": 3, "origin_id": 7, "origin_slot": 0, "target_id": -20, "target_slot": 0, "type": "MODEL"},
        ],
    }


def with_subgraph(owner: Json) -> Json:
    nodes = [node(1, "Model", ["y"]), owner, node(3, "Sample", [7, "fixed"], [socket("model", "MODEL", 21)])]
    links = [[20, 1, 0, 2, 0, "MODEL"], [21, 2, 0, 3, 0, "MODEL"]]
    return convert(nodes, links, definitions={"subgraphs": [subgraph()]})


def test_subgraph_is_flattened() -> None:
    prompt = with_subgraph(node(2, "sub-1", None, [socket("model", "MODEL", 20)]))
    assert set(prompt) == {"1", "2:7", "3"}
    assert prompt["2:7"]["inputs"] == {"model": ["1", 0], "strength": 0.25}
    assert prompt["3"]["inputs"]["model"] == ["2:7", 0]


def test_each_use_of_a_subgraph_has_its_own_widget_values() -> None:
    owner = node(2, "sub-1", [0.75], [socket("model", "MODEL", 20)])
    assert with_subgraph(owner)["2:7"]["inputs"]["strength"] == 0.75


def test_old_proxy_widgets_set_the_inner_value() -> None:
    owner = node(2, "sub-1", [0.9], [socket("model", "MODEL", 20)], properties={"proxyWidgets": [["7", "strength"]]})
    assert with_subgraph(owner)["2:7"]["inputs"]["strength"] == 0.9


def test_bypassed_subgraph_passes_its_model_on() -> None:
    owner = node(2, "sub-1", None, [socket("model", "MODEL", 20)], mode=4, outputs=[{"name": "MODEL", "type": "MODEL"}])
    prompt = with_subgraph(owner)
    assert set(prompt) == {"1", "3"}
    assert prompt["3"]["inputs"]["model"] == ["1", 0]


def test_muted_subgraph_is_dropped_with_everything_in_it() -> None:
    prompt = with_subgraph(node(2, "sub-1", None, [socket("model", "MODEL", 20)], mode=2))
    assert set(prompt) == {"1", "3"}
    assert "model" not in prompt["3"]["inputs"]


# --- errors -----------------------------------------------------------------------------------------------------------------------------


def test_unknown_types_are_all_listed() -> None:
    with pytest.raises(UnknownNodesError, match=r"Ghost \(node 2, 4\), Phantom \(node 3\)") as caught:
        convert([node(1, "Model", ["x"]), node(2, "Ghost"), node(3, "Phantom"), node(4, "Ghost"), node(5, "Muted", mode=2)])
    assert caught.value.types == ["Ghost", "Phantom"]


def test_api_format_is_refused() -> None:
    with pytest.raises(ValueError, match="no `nodes`"):
        to_prompt({"1": {"class_type": "Load", "inputs": {}}}, OBJECT_INFO)
