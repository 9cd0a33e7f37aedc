"""What the registry and ComfyUI's Manager read: requirements, the package's files, and which pack the nodes of workflows come from."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
WORKFLOWS = sorted([*(ROOT / "workflows").glob("*.json"), *(ROOT / "subgraphs").glob("*.json")])
# ComfyUI's modules at the top level, beside comfy*.
COMFYUI = {"execution", "folder_paths", "latent_preview", "node_helpers", "server"}
MODULES = {"pillow": "PIL"}
OPTIONAL = {"av"}  # ComfyUI brings it; without it there is no WebM, and a sentence says so
NEWER = {"CreateBoundingBoxes": "0.27.0"}  # than the oldest ComfyUI; the notes of its workflows say so


def written(key: str) -> Any:
    """A string or list of pyproject.toml; without tomllib, which Python 3.10 lacks."""
    found = re.search(rf'^{key} = (".*?"$|\[.*?^\])', PYPROJECT, re.MULTILINE | re.DOTALL)
    assert found is not None
    return ast.literal_eval(found[1])


def version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split("."))


def imported() -> set[str]:
    """Top-level modules that the pack imports from elsewhere."""
    files = [ROOT / "__init__.py", *(ROOT / "nodes").rglob("*.py"), *(ROOT / "lib_layerdiffuse").rglob("*.py")]
    names = set()
    for node in (node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module)
    tops = {name.split(".")[0] for name in names}
    return {top for top in tops if top not in sys.stdlib_module_names | COMFYUI and not top.startswith("comfy")}


def test_every_requirement_is_imported_and_every_import_is_required() -> None:
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    assert requirements == written("dependencies")
    names = {re.split(r"[<>=]", line)[0] for line in requirements}
    assert {MODULES.get(name, name.replace("-", "_")) for name in names} == imported() - OPTIONAL


def test_the_package_leaves_out_nothing_that_the_pack_needs() -> None:
    lines = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    left_out = {line.strip("/") for line in lines if not line.startswith("#")}
    assert all((ROOT / name).exists() for name in left_out)
    needed = {"__init__.py", "nodes", "lib_layerdiffuse", "mini", "workflows", "subgraphs", "web", "locales"}
    assert not left_out & (needed | {"requirements.txt", "pyproject.toml", "README.md", "LICENSE"})


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_node_says_which_pack_it_needs(path: Path) -> None:
    """`ver` is the version since which a node does what the workflow needs, so a release changes no workflow."""
    newest: dict[str, str] = {"diaphane": written("version"), "comfy-core": written("requires-comfyui").removeprefix(">=")}
    workflow = json.loads(path.read_text(encoding="utf-8"))
    graphs = [workflow, *workflow.get("definitions", {}).get("subgraphs", [])]
    # Notes are the frontend's own; a subgraph's node has the subgraph's id for its type.
    without = {"MarkdownNote", *(graph["id"] for graph in graphs)}
    for node in (node for graph in graphs for node in graph["nodes"] if node["type"] not in without):
        pack = "diaphane" if node["type"].startswith("Diaphane") else "comfy-core"
        assert node["properties"].get("cnr_id") == pack
        assert version(node["properties"]["ver"]) <= version(NEWER.get(str(node["type"]), newest[pack]))
    assert written("name") == "diaphane"
