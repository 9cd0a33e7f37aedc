"""What the tests of texts for artists read: the nodes as the host describes them, and tables of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HELP = ROOT / "web" / "docs"
# Nodes whose workflow is still to come.
WITHOUT_WORKFLOW = {"DiaphaneBleed"}

CODE_BLOCK = re.compile(r"^[ \t]*```.*?^[ \t]*```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)|<(?:img|a|video|source)\b[^>]*?(?:src|href)=[\"']([^\"']+)")

Json = dict[str, Any]


@pytest.fixture(scope="module")
def all_infos(node_classes: dict[str, Any]) -> dict[str, Json]:
    """The nodes by id, as the host describes them to the frontend."""
    return {node_id: node.GET_NODE_INFO_V1() for node_id, node in node_classes.items()}


@pytest.fixture(scope="module")
def node_infos(all_infos: dict[str, Json]) -> dict[str, Json]:
    """Those that artists find: the deprecated ones of the older pack are only there for its workflows."""
    return {node_id: info for node_id, info in all_infos.items() if not info.get("deprecated")}


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


def links(text: str) -> list[str]:
    return [inline or tag for inline, tag in LINK.findall(CODE_BLOCK.sub("", text))]


def is_elsewhere(target: str) -> bool:
    return target.startswith(("https://", "mailto:", "#"))
