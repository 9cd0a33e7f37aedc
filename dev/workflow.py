"""From a workflow, as the frontend saves it, to a prompt, as the server runs it.

`to_prompt` does what the frontend's own conversion does when one presses Run, without a browser. Two things it leaves to the frontend:
a `{red|blue}` choice in a prompt takes the first alternative instead of a random one, and %date% in file names stays as it is.
Nodes that only foreign frontend extensions know (Get/Set pairs, old group nodes) count as unknown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dev.widgets import chosen, input_specs, is_widget, kind_of, widget_values

Json = dict[str, Any]

MUTED, BYPASSED = 2, 4
ANNOTATIONS = {"Note", "MarkdownNote"}
FRONTEND_ONLY = {*ANNOTATIONS, "Reroute", "PrimitiveNode"}

# The ids that stand for a subgraph's own inputs in its links.
SUBGRAPH_INPUTS = -10


class UnknownNodesError(ValueError):
    """The workflow uses node types that this server does not have."""

    def __init__(self, uses: dict[str, list[str]]):
        self.types = sorted(uses)
        listed = ", ".join(f"{name} (node {', '.join(ids)})" for name, ids in sorted(uses.items()))
        super().__init__(f"The workflow uses node types that this ComfyUI does not have: {listed}. Install the packs that bring them.")


@dataclass(frozen=True)
class Link:
    origin_id: str
    origin_slot: int


@dataclass(frozen=True)
class Output:
    """An output that a prompt can refer to."""

    node: str
    slot: int


@dataclass(frozen=True)
class Value:
    """A widget value that takes the place of a link."""

    value: Any


@dataclass
class Graph:
    """The workflow itself or one use of a subgraph: `owner` is then the node, in `parent`, that stands for it."""

    nodes: dict[str, Json]
    links: dict[str, Link]
    subgraphs: dict[str, Json]
    definition: Json
    parent: Graph | None = None
    owner: Json = field(default_factory=dict)
    prefix: str = ""

    def path(self, node: Json) -> str:
        return f"{self.prefix}{node['id']}"

    def inside(self, node: Json) -> Graph | None:
        """The subgraph that a node stands for, None for an ordinary node."""
        definition = self.subgraphs.get(node["type"])
        return _graph(definition, self.subgraphs, self, node) if definition else None


def graphs(workflow: Json) -> Iterator[Json]:
    """A saved workflow, then the subgraphs that it defines."""
    yield workflow
    yield from workflow.get("definitions", {}).get("subgraphs", ())


def to_prompt(workflow: Json, object_info: Json) -> Json:
    """Converts a workflow (litegraph 0.4 or schema 1.0) to API format for the server that answered `object_info`.

    Raises UnknownNodesError for types that are neither in object_info nor in the frontend, ValueError for a workflow that is none.
    """
    if "nodes" not in workflow:
        raise ValueError("This is not a workflow in UI format: it has no `nodes`. API format needs no conversion.")
    subgraphs = {definition["id"]: definition for definition in workflow.get("definitions", {}).get("subgraphs", [])}
    nodes = list(_executable(_graph(workflow, subgraphs)))
    unknown: dict[str, list[str]] = {}
    for graph, node in nodes:
        if node["type"] not in object_info:
            unknown.setdefault(node["type"], []).append(graph.path(node))
    if unknown:
        raise UnknownNodesError(unknown)
    prompt = {graph.path(node): _prompt_node(graph, node, object_info) for graph, node in nodes}
    for entry in prompt.values():
        entry["inputs"] = {name: value for name, value in entry["inputs"].items() if not isinstance(value, list) or value[0] in prompt}
    return prompt


def _graph(definition: Json, subgraphs: dict[str, Json], parent: Graph | None = None, owner: Json | None = None) -> Graph:
    links = {}
    for link in definition.get("links") or []:
        if isinstance(link, dict):
            links[str(link["id"])] = Link(str(link["origin_id"]), int(link["origin_slot"]))
        elif link:
            links[str(link[0])] = Link(str(link[1]), int(link[2]))
    nodes = {str(node["id"]): node for node in definition["nodes"]}
    prefix = f"{parent.path(owner)}:" if parent and owner else ""
    return Graph(nodes, links, subgraphs, definition, parent, owner or {}, prefix)


def _executable(graph: Graph) -> Iterator[tuple[Graph, Json]]:
    """Every node that the server is to know, those of subgraphs included."""
    for node in graph.nodes.values():
        if node.get("mode", 0) in (MUTED, BYPASSED) or node["type"] in FRONTEND_ONLY:
            continue
        inner = graph.inside(node)
        if inner is None:
            yield graph, node
        else:
            yield from _executable(inner)


def _prompt_node(graph: Graph, node: Json, object_info: Json) -> Json:
    info = object_info[node["type"]]
    specs = dict(input_specs(info))
    inputs = {name: _wrapped(chosen(value, specs.get(name))) for name, value in widget_values(node, info).items()}
    inputs.update({name: _wrapped(value) for name, value in _overrides(graph, node).items() if name in inputs})
    for entry in node.get("inputs") or []:
        source = _resolve_input(graph, node, entry, object_info)
        if isinstance(source, Output):
            inputs[entry["name"]] = [source.node, source.slot]
        elif isinstance(source, Value):
            inputs[entry["name"]] = _wrapped(source.value)
    title = node.get("title") or info.get("display_name") or node["type"]
    return {"inputs": inputs, "class_type": node["type"], "_meta": {"title": title}}


def _wrapped(value: Any) -> Any:
    # A bare list would read as a link.
    return {"__value__": value} if isinstance(value, list) else value


# --- links ------------------------------------------------------------------------------------------------------------------------------


def _resolve_input(graph: Graph, node: Json, entry: Json, object_info: Json, wanted: str | None = None) -> Output | Value | None:
    """Where an input's data comes from, seen through subgraphs, reroutes and bypassed nodes; None if nothing is connected."""
    link = graph.links.get(str(entry.get("link"))) if entry.get("link") is not None else None
    if link is None:
        return None
    if link.origin_id == str(SUBGRAPH_INPUTS) and graph.parent is not None:
        name = graph.definition["inputs"][link.origin_slot]["name"]
        outer = next((item for item in graph.owner.get("inputs") or [] if item["name"] == name), {"name": name})
        if outer.get("link") is None:
            return _promoted_value(graph, name, object_info)
        return _resolve_input(graph.parent, graph.owner, outer, object_info, wanted)
    origin = graph.nodes.get(link.origin_id)
    return _resolve_output(graph, origin, link.origin_slot, wanted or entry.get("type", "*"), object_info) if origin else None


def _resolve_output(graph: Graph, node: Json, slot: int, wanted: str, object_info: Json) -> Output | Value | None:
    mode = node.get("mode", 0)
    if mode == MUTED:
        return None
    if mode == BYPASSED:
        entry = _bypass(_live_inputs(graph, node, object_info), node, slot, wanted)
        return _resolve_input(graph, node, entry, object_info) if entry else None
    if node["type"] == "Reroute":
        entries = node.get("inputs") or []
        return _resolve_input(graph, node, entries[0], object_info, wanted) if entries else None
    if node["type"] == "PrimitiveNode":
        values = node.get("widgets_values") or []
        return Value(values[0]) if values else None
    inner = graph.inside(node)
    if inner is None:
        return Output(graph.path(node), slot)
    ends = inner.definition["outputs"][slot].get("linkIds") or []
    link = inner.links.get(str(ends[0])) if ends else None
    if link is None:
        return None
    if link.origin_id == str(SUBGRAPH_INPUTS):
        return _resolve_input(inner, node, {"name": "", "link": ends[0], "type": wanted}, object_info)
    return _resolve_output(inner, inner.nodes[link.origin_id], link.origin_slot, wanted, object_info)


def _promoted_value(graph: Graph, name: str, object_info: Json) -> Value | None:
    """What a subgraph's node says for one of its own widgets; None if that input of the subgraph is no widget.

    The node saves its values in the order of the subgraph's inputs, old ones in that of their list of proxies.
    """
    promoted = _promoted(graph, object_info)
    if name not in promoted:
        return None
    proxies = graph.owner.get("properties", {}).get("proxyWidgets")
    target, value = promoted[name]
    keys = [(str(inner), widget) for inner, widget, *_ in proxies] if proxies else [("-1", key) for key in promoted]
    for key, saved in zip(keys, _saved_list(graph.owner), strict=False):
        if key in (("-1", name), target) and saved is not None:
            return Value(saved)
    return value


def _promoted(graph: Graph, object_info: Json) -> dict[str, tuple[tuple[str, str], Value]]:
    """The inputs of a subgraph that are widgets on its node, each with the first inner widget (node, name) that it feeds and its value."""
    found: dict[str, tuple[tuple[str, str], Value]] = {}
    for slot, entry in enumerate(graph.definition.get("inputs") or []):
        for node in graph.nodes.values():
            for inner_entry in node.get("inputs") or []:
                link = graph.links.get(str(inner_entry.get("link")))
                if link == Link(str(SUBGRAPH_INPUTS), slot) and entry["name"] not in found:
                    value = _own_value(graph, node, inner_entry["name"], object_info)
                    if value is not None:
                        found[entry["name"]] = ((str(node["id"]), inner_entry["name"]), value)
    return found


def _own_value(graph: Graph, node: Json, name: str, object_info: Json) -> Value | None:
    inner = graph.inside(node)
    if inner is not None:
        return _promoted_value(inner, name, object_info)
    values = widget_values(node, object_info[node["type"]]) if node["type"] in object_info else {}
    return Value(values[name]) if name in values else None


def _overrides(graph: Graph, node: Json) -> Json:
    """Widget values that an old subgraph's node holds for this inner node."""
    proxies = graph.owner.get("properties", {}).get("proxyWidgets") or []
    pairs = zip(proxies, _saved_list(graph.owner), strict=False)
    return {widget: value for (inner, widget, *_), value in pairs if str(inner) == str(node["id"]) and value is not None}


def _saved_list(node: Json) -> list[Any]:
    saved = node.get("widgets_values")
    return saved if isinstance(saved, list) else []


def _live_inputs(graph: Graph, node: Json, object_info: Json) -> list[Json]:
    """A node's inputs in the order that they have in the running frontend: sockets, widgets, then what only the workflow knows."""
    saved = {entry["name"]: entry for entry in node.get("inputs") or []}
    inner = graph.inside(node)
    if inner is not None:
        ordered = [(entry["name"], entry["type"]) for entry in inner.definition["inputs"]]
    elif node["type"] in object_info:
        specs = input_specs(object_info[node["type"]])
        ordered = [(name, kind_of(spec)) for name, spec in sorted(specs, key=lambda item: is_widget(item[1]))]
    else:
        ordered = []
    known = {name for name, _ in ordered}
    return [{"name": name, "type": kind, **saved.get(name, {})} for name, kind in ordered] + [
        entry for name, entry in saved.items() if name not in known
    ]


def _bypass(inputs: list[Json], node: Json, slot: int, wanted: str) -> Json | None:
    """The input that a bypassed node passes on: the one opposite the output if it fits, else the first of the type wanted."""
    if not inputs:
        return None
    if wanted in ("*", ""):
        return inputs[slot] if slot < len(inputs) else inputs[0]
    outputs = node.get("outputs") or []
    given = outputs[slot]["type"] if slot < len(outputs) else wanted
    fits = [_compatible(entry["type"], given) and _compatible(entry["type"], wanted) for entry in inputs]
    if slot < len(inputs) and fits[slot]:
        return inputs[slot]
    exact = next((entry for entry in inputs if entry["type"] == wanted), None)
    return exact or next((entry for entry, fit in zip(inputs, fits, strict=True) if fit), None)


def _compatible(one: Any, other: Any) -> bool:
    kinds = [{kind.strip().lower() for kind in str(value).split(",")} for value in (one, other)]
    return any(kind & {"*", "", "0"} for kind in kinds) or bool(kinds[0] & kinds[1])
