"""What artists read agrees with the nodes: tooltips, help pages, translations, the README's tables, links."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from dev import locales
from lib_layerdiffuse.weights.catalogue import CATALOGUE

ROOT = Path(__file__).resolve().parents[2]
HELP = ROOT / "web" / "docs"
README = ROOT / "README.md"
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
DOCUMENTS = [README, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(HELP.rglob("*.md"))]
# Nodes whose workflow is still to come.
WITHOUT_WORKFLOW = {"DiaphaneBleed"}
ALIASES = {"LayerDiffuse", "transparent", "RGBA", "alpha"}

CODE_BLOCK = re.compile(r"^[ \t]*```.*?^[ \t]*```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)|<(?:img|a|video|source)\b[^>]*?(?:src|href)=[\"']([^\"']+)")
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:home|Users|root|work|mnt|media|tmp|opt|var|workspace|content)/\w|\b[A-Za-z]:\\\w|file://")
SOCKET = re.compile(r"- `(\w+)`: .+\. \*([A-Z0-9_]+(?:,[A-Z0-9_]+)*)(?:, (.+))?\*")
# They mean something to the frontend's translation library.
MESSAGE_SYNTAX = set("{}@|$")

Json = dict[str, Any]


@pytest.fixture(scope="module")
def all_infos(node_classes: dict[str, Any]) -> dict[str, Json]:
    """The nodes by id, as the host describes them to the frontend."""
    return {node_id: node.GET_NODE_INFO_V1() for node_id, node in node_classes.items()}


@pytest.fixture(scope="module")
def node_infos(all_infos: dict[str, Json]) -> dict[str, Json]:
    """Those that artists find: the deprecated ones of the older pack are only there for its workflows."""
    return {node_id: info for node_id, info in all_infos.items() if not info.get("deprecated")}


@pytest.fixture(scope="module")
def english() -> Json:
    return json.loads((locales.LOCALES / locales.ENGLISH / locales.FILE).read_text(encoding="utf-8"))


def inputs_of(info: Json) -> Iterator[tuple[str, str, Json, bool]]:
    """(id, type, options, whether it is optional) of every input that artists see."""
    for section in ("required", "optional"):
        for input_id, (kind, options) in info["input"].get(section, {}).items():
            yield input_id, kind, options, section == "optional"


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """The cells of the table under a heading, without pictures, by the text of the first one without its marks."""
    section = re.split(r"^#+ ", text, flags=re.MULTILINE)
    table = next((part for part in section if part.startswith(f"{heading}\n")), "")
    lines = [line.strip("|\n ").split(" | ") for line in table.splitlines() if line.startswith("|")]
    cells = ([cell.strip() for cell in line if not cell.startswith("<img")] for line in lines[2:])
    return {re.sub(r"\[(.*?)\]\(.*?\)", r"\1", row[0]).replace("`", ""): row for row in cells}


def assert_none(problems: Iterable[str]) -> None:
    found = list(problems)
    assert not found, "\n" + "\n".join(found)


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


# --- help pages -------------------------------------------------------------------------------------------------------------------------


def test_every_node_has_a_help_page_and_no_page_is_left_over(all_infos: dict[str, Json]) -> None:
    assert {path.stem for path in HELP.glob("*.md")} == set(all_infos)


def test_help_pages_of_deprecated_nodes_name_a_node_to_use_instead(all_infos: dict[str, Json], node_infos: dict[str, Json]) -> None:
    names = {info["display_name"] for info in node_infos.values()}

    def problems() -> Iterator[str]:
        for node_id in all_infos.keys() - node_infos.keys():
            text = help_page(node_id)
            if not text.startswith(f"# {all_infos[node_id]['display_name']}\n"):
                yield f"{node_id}: the title is {text.splitlines()[0]}"
            instead = re.findall(r"\*\*(.+?)\*\*", text.partition("## Use instead\n")[2].partition("## ")[0])
            if not instead or set(instead) - names:
                yield f"{node_id}: use instead {instead}"
            if links(text):
                yield f"{node_id}: links to {links(text)}"

    assert_none(problems())


def test_help_pages_describe_the_inputs(node_infos: dict[str, Json]) -> None:
    def problems() -> Iterator[str]:
        for node_id, info in node_infos.items():
            described = sockets_in(help_page(node_id), "Inputs")
            inputs = {input_id: (kind, options, optional) for input_id, kind, options, optional in inputs_of(info)}
            if set(described) != set(inputs):
                yield f"{node_id}: the page has the inputs {list(described)}, the node {list(inputs)}"
                continue
            for input_id, (kind, options, optional) in inputs.items():
                problems = input_problems(input_id, *described[input_id], kind, options, optional)
                yield from (f"{node_id}: {input_id}: {text}" for text in problems)

    assert_none(problems())


def input_problems(input_id: str, shown_kind: str, values: str, kind: str, options: Json, optional: bool) -> Iterator[str]:
    """What a help page gets wrong about an input."""
    if shown_kind != kind:
        yield f"the type is {kind}"
    for word, wanted in (("optional", optional), ("advanced", bool(options.get("advanced")))):
        if (word in re.split(r"\W+", values)) != wanted:
            yield f"{'lacks' if wanted else 'wrongly says'} '{word}'"
    if kind == "COMBO":
        # Which files there are is up to the artist.
        expected = [f"`{option}`" for option in ([] if input_id.endswith("file") else options["options"])]
        if not values.startswith(", ".join(expected)):
            yield f"the choices are {', '.join(expected)}"
        if f"default `{options['default']}`" not in values:
            yield f"the default is {options['default']}"
    elif kind in ("INT", "FLOAT") and not values.startswith(f"{options['min']:g} to {options['max']:g}, default {options['default']:g}"):
        yield f"the range is {options['min']:g} to {options['max']:g}, the default {options['default']:g}"


def test_help_pages_describe_the_outputs(node_infos: dict[str, Json]) -> None:
    def problems() -> Iterator[str]:
        for node_id, info in node_infos.items():
            found = [(name, kind) for name, (kind, _) in sockets_in(help_page(node_id), "Outputs").items()]
            if found != (expected := list(zip(info["output_name"], info["output"], strict=True))):
                yield f"{node_id}: the page has the outputs {found}, the node {expected}"

    assert_none(problems())


def sockets_in(page: str, heading: str) -> dict[str, tuple[str, str]]:
    """{id: (type, values)} of a section's lines `- `id`: what it is. *TYPE, values*`: a narrow panel has no room for columns."""
    section = page.partition(f"## {heading}\n")[2].partition("## ")[0]
    lines = [line for line in section.splitlines() if line and line != "None."]
    found = [SOCKET.fullmatch(line) for line in lines]
    assert all(found), f"not in the form of the other pages: {[line for line, match in zip(lines, found, strict=True) if not match]}"
    return {match[1]: (match[2], match[3] or "") for match in found if match}


def test_help_pages_have_one_form(node_infos: dict[str, Json]) -> None:
    headings = ["## When to use it", "## Inputs", "## Outputs", "## Wiring", "## When something goes wrong"]
    names = {info["display_name"] for info in node_infos.values()}

    def problems() -> Iterator[str]:
        for node_id, info in node_infos.items():
            lines = help_page(node_id).splitlines()
            if lines[0] != f"# {info['display_name']}":
                yield f"{node_id}: the title is {lines[0]}"
            if (found := [line for line in lines if line.startswith("## ")]) != headings:
                yield f"{node_id}: the headings are {found}"
            if len(lines) > 60:
                yield f"{node_id}: {len(lines)} lines"
            # Sentences in bold are symptoms, anything else in bold is a node.
            bold = [text for text in re.findall(r"\*\*(.+?)\*\*", "\n".join(lines)) if not text.endswith(".")]
            yield from (f"{node_id}: no node is called {text}" for text in bold if text not in names)
            # The frontend shows the page inside the application, where a link to another page leads nowhere.
            found = [target for target in links(help_page(node_id)) if not is_elsewhere(target)]
            yield from (f"{node_id}: links to {target}" for target in found if target != f"pictures/{node_id}.webp")

    assert_none(problems())


def test_help_pages_show_the_node_in_a_graph(node_infos: dict[str, Json]) -> None:
    """`make help-pictures` draws them."""
    shown = {node_id for node_id in node_infos if f"](pictures/{node_id}.webp)" in help_page(node_id)}
    assert not node_infos.keys() - shown - WITHOUT_WORKFLOW, "show pictures/ID.webp under Wiring"
    pictures = {path.stem: path for path in (HELP / "pictures").glob("*")}
    assert set(pictures) == shown
    for path in pictures.values():
        assert path.suffix == ".webp" and path.stat().st_size < 40_000, path.name


def help_page(node_id: str) -> str:
    return (HELP / f"{node_id}.md").read_text(encoding="utf-8")


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


def links(text: str) -> list[str]:
    return [inline or tag for inline, tag in LINK.findall(CODE_BLOCK.sub("", text))]


def is_elsewhere(target: str) -> bool:
    return target.startswith(("https://", "mailto:", "#"))


def test_documents_name_no_path_of_one_machine() -> None:
    texts = [*DOCUMENTS, *WORKFLOWS, *sorted(locales.LOCALES.rglob("*.json"))]
    assert_none(
        f"{path.relative_to(ROOT)}: {match[0]}" for path in texts for match in MACHINE_PATH.finditer(path.read_text(encoding="utf-8"))
    )
