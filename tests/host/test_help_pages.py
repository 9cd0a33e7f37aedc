"""Help pages have one form, and describe the inputs and outputs that the nodes have."""

# pyright: reportMissingImports=false
from __future__ import annotations

import re
from collections.abc import Iterator

from tests.host.node_texts import HELP, WITHOUT_WORKFLOW, Json, all_infos, assert_none, inputs_of, is_elsewhere, links, node_infos

__all__ = ["all_infos", "node_infos"]

SOCKET = re.compile(r"- `(\w+)`: .+\. \*([A-Z0-9_]+(?:,[A-Z0-9_]+)*)(?:, (.+))?\*")


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
        is_file = input_id.endswith("file") or input_id in ("image", "folder")
        expected = [] if is_file else [f"`{option}`" for option in options["options"]]
        if not values.startswith(", ".join(expected)):
            yield f"the choices are {', '.join(expected)}"
        if "default" in options and f"default `{options['default']}`" not in values:
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
