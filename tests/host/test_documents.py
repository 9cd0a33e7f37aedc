"""What artists read agrees with the nodes: tooltips, translations, the README's tables, links."""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest

from dev import locales
from lib_layerdiffuse.weights.catalogue import CATALOGUE
from tests.host.node_texts import (
    HELP,
    ROOT,
    WITHOUT_WORKFLOW,
    Json,
    all_infos,
    assert_none,
    inputs_of,
    is_elsewhere,
    links,
    node_infos,
    rows,
)

__all__ = ["all_infos", "node_infos"]

README = ROOT / "README.md"
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
DOCUMENTS = [README, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(HELP.rglob("*.md"))]
ALIASES = {"LayerDiffuse", "transparent", "RGBA", "alpha"}
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:home|Users|root|work|mnt|media|tmp|opt|var|workspace|content)/\w|\b[A-Za-z]:\\\w|file://")
# They mean something to the frontend's translation library.
MESSAGE_SYNTAX = set("{}@|$")


@pytest.fixture(scope="module")
def english() -> Json:
    return json.loads((locales.LOCALES / locales.ENGLISH / locales.FILE).read_text(encoding="utf-8"))


# --- nodes ------------------------------------------------------------------------------------------------------------------------------


def test_every_node_explains_itself(all_infos: dict[str, Json]) -> None:
    def problems() -> Iterator[str]:
        for node_id, info in all_infos.items():
            if not info["description"]:
                yield f"{node_id} has no description"
            if not info.get("deprecated") and (missing := ALIASES - set(info["search_aliases"] or ())):
                yield f"{node_id} is not found by {sorted(missing)}"
            for input_id, _, options, _ in inputs_of(info):
                if not options.get("tooltip"):
                    yield f"{node_id}: input {input_id} has no tooltip"
            for name, tooltip in zip(info["output_name"], info["output_tooltips"], strict=True):
                if not tooltip:
                    yield f"{node_id}: output {name} has no tooltip"

    assert_none(problems())


def test_names_are_stable_and_tell_things_apart(node_classes: dict[str, Any]) -> None:
    def problems() -> Iterator[str]:
        schemas = {node_id: node.GET_SCHEMA() for node_id, node in node_classes.items() if not node.GET_SCHEMA().is_deprecated}
        names = [schema.display_name for schema in schemas.values()]
        yield from (f"{name} is the name of two nodes" for name in set(names) if names.count(name) > 1)
        for node_id, schema in schemas.items():
            if not node_id.startswith("Diaphane"):
                yield f"{node_id} lacks the prefix"
            if not schema.category.startswith("layerdiffuse"):
                yield f"{node_id} is in the category {schema.category}"
            inputs = {item.id for item in schema.inputs}
            shown = [output.display_name for output in schema.outputs]
            if len(set(shown)) < len(shown):
                yield f"{node_id} has two outputs of one name: {shown}"
            for output in schema.outputs:
                if not output.display_name or output.display_name == output.io_type:
                    yield f"{node_id}: an output {output.io_type} has no display name"
                if output.id in inputs:
                    yield f"{node_id}: {output.id} is the id of an input and of an output"

    assert_none(problems())


def test_masks_tell_their_polarity(node_infos: dict[str, Json]) -> None:
    def problems() -> Iterator[str]:
        for node_id, info in node_infos.items():
            outputs = zip(info["output_name"], info["output"], info["output_tooltips"], strict=True)
            sockets = [(input_id, kind, options["tooltip"]) for input_id, kind, options, _ in inputs_of(info)] + list(outputs)
            yield from (f"{node_id}: {name}" for name, kind, tooltip in sockets if kind == "MASK" and "1 = transparent" not in tooltip)

    assert_none(problems())


def test_every_node_is_used_by_a_workflow(node_infos: dict[str, Json]) -> None:
    used: set[str] = set()
    for path in WORKFLOWS:
        workflow = json.loads(path.read_text(encoding="utf-8"))
        graphs = [workflow, *workflow.get("definitions", {}).get("subgraphs", [])]
        used |= {node["type"] for graph in graphs for node in graph.get("nodes", [])}
    unknown = {node for node in used if node.startswith("Diaphane")} - node_infos.keys()
    assert not unknown, f"workflows use nodes that do not exist: {sorted(unknown)}"
    if unused := sorted(node_infos.keys() - used - WITHOUT_WORKFLOW):
        pytest.fail(f"no workflow uses {', '.join(unused)}")
    assert not WITHOUT_WORKFLOW & used, "now used by a workflow: take them off the list"


# --- texts for the frontend (their translations: test_translations.py) ------------------------------------------------------------------


def test_english_texts_are_those_of_the_nodes(all_infos: dict[str, Json], english: Json) -> None:
    texts = locales.definitions(all_infos)
    differing = sorted(locales.keys(texts) ^ locales.keys(english)) or [node for node in texts if texts[node] != english[node]]
    assert not differing, f"run `python3 dev/comfyui.py run dev/locales.py`: {differing}"
    assert (locales.LOCALES / locales.ENGLISH / locales.FILE).read_text(encoding="utf-8") == locales.render(texts)


def test_translations_mean_what_they_say() -> None:
    """The frontend reads braces, bars and the like as placeholders."""

    def problems() -> Iterator[str]:
        for path in sorted(locales.LOCALES.rglob("*.json")):
            for key, text in leaves(json.loads(path.read_text(encoding="utf-8"))):
                if not isinstance(text, str) or not text or MESSAGE_SYNTAX & set(text):
                    yield f"{path.relative_to(ROOT)}: {key}: {text!r}"

    assert_none(problems())


def leaves(texts: Json, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in texts.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


# --- README -----------------------------------------------------------------------------------------------------------------------------


def test_readme_lists_the_model_files() -> None:
    text = README.read_text(encoding="utf-8")
    table = rows(text, "Model files")
    assert list(table) and set(table) == {file.name for file in CATALOGUE}

    def problems() -> Iterator[str]:
        for file in CATALOGUE:
            _, purpose, size, licence = table[file.name]
            if not purpose.startswith(str(file.family)):
                yield f"{file.name} is for {file.family}, not for {purpose}"
            if file.size is None and not size.startswith("about "):
                yield f"{file.name}: its size is not known exactly, say 'about {size}'"
            if file.size is not None and size != size_of(file.size):
                yield f"{file.name}: {size_of(file.size)}, not {size}"
            if licence != file.licence:
                yield f"{file.name}: {file.licence}, not {licence}"
            if f"https://huggingface.co/{file.repo})" not in text:
                yield f"{file.name} comes from {file.repo}, which is not named"

    assert_none(problems())
    assert "`models/layer_model`" in text


def size_of(count: int) -> str:
    """Bytes as the README writes them: 3.62 GB, 743 MB, 2.4 MB."""
    if count >= 1e9:
        return f"{count / 1e9:.2f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e7 else f"{count / 1e6:.1f} MB"


def test_readme_lists_the_nodes(node_infos: dict[str, Json]) -> None:
    table = rows(README.read_text(encoding="utf-8"), "Nodes")
    assert set(table) == {info["display_name"] for info in node_infos.values()}
    for node_id, info in node_infos.items():
        assert f"](web/docs/{node_id}.md)" in table[info["display_name"]][0]


def test_readme_lists_the_workflows() -> None:
    assert set(rows(README.read_text(encoding="utf-8"), "Workflows")) == {path.stem for path in WORKFLOWS}


def test_readme_asks_for_the_comfyui_that_the_pack_asks_for() -> None:
    needed = re.search(r'requires-comfyui = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert needed is not None
    assert f"ComfyUI {needed[1]} or newer" in README.read_text(encoding="utf-8")


# --- all documents ----------------------------------------------------------------------------------------------------------------------


def test_links_lead_somewhere() -> None:
    def problems() -> Iterator[str]:
        for document in DOCUMENTS:
            for target in links(document.read_text(encoding="utf-8")):
                path = document.parent / unquote(target.split("#")[0])
                if not is_elsewhere(target) and not (path.exists() and path.resolve().is_relative_to(ROOT)):
                    yield f"{document.relative_to(ROOT)}: {target}"

    assert_none(problems())


def test_documents_name_no_path_of_one_machine() -> None:
    texts = [*DOCUMENTS, *WORKFLOWS, *sorted(locales.LOCALES.rglob("*.json"))]
    assert_none(
        f"{path.relative_to(ROOT)}: {match[0]}" for path in texts for match in MACHINE_PATH.finditer(path.read_text(encoding="utf-8"))
    )
