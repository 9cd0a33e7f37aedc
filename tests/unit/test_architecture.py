"""Imports go one way (CONTRIBUTING.md), and what only one node needs is imported by that node."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "lib_layerdiffuse"

# ComfyUI's top-level modules that a node pack may meet.
COMFYUI = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "comfyui_version"}
COMFYUI |= {"execution", "folder_paths", "latent_preview", "node_helpers", "server"}
THIRD_PARTY = {"torch", "safetensors", "numpy", "PIL", "einops", "huggingface_hub", "filelock", "psd_tools"}
FROM_COMFYUI = {"av"}  # no requirement of the pack: used where ComfyUI brings it
FORBIDDEN = {"diffusers", "cv2"}

MAY_IMPORT = {
    "nets": {"nets"},
    "pixels": {"pixels", "errors"},
    "weights": {"weights", "errors"},
    "documents": {"documents", "pixels", "errors"},
    "comfyui": {"comfyui", "documents", "weights", "pixels", "nets", "errors"},
}

# The floors of comfyui, highest first; each may use those below it. Files that lie beside them are its ground floor.
FLOORS = ["recipes", "patch", "alpha", "models"]
ARROWS = 12

# All that hold Python, and how long a file of it may be.
FOLDERS = ["dev", "lib_layerdiffuse", "nodes", "tests", "training"]
LONGEST = 330


def imported(path: Path, statement: ast.stmt | None = None) -> set[str]:
    """Dotted names of all that a file, or one of its imports, imports; relative ones resolved from the repository's root."""
    package = path.relative_to(ROOT).parent.parts
    names = set()
    for node in [statement] if statement else ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            names.add(".".join((*base, *filter(None, [node.module]))))
    return names


def own_files() -> list[Path]:
    return [ROOT / "__init__.py", *sorted((ROOT / "nodes").glob("*.py")), *sorted(LIBRARY.rglob("*.py"))]


@pytest.mark.parametrize("path", sorted(LIBRARY.rglob("*.py")), ids=lambda path: str(path.relative_to(LIBRARY)))
def test_layers_import_downwards(path: Path) -> None:
    layer = path.relative_to(LIBRARY).parts[0]
    for name in imported(path):
        top, *rest = name.split(".")
        if top == "lib_layerdiffuse" and rest and layer in MAY_IMPORT:
            assert rest[0] in MAY_IMPORT[layer], f"{layer} may not import {name}"
        if layer != "comfyui":
            assert top not in COMFYUI, f"only comfyui may import {name}"
        if layer == "weights":
            assert name != "torch.nn"
        if layer in ("nets", "pixels"):
            assert top not in THIRD_PARTY - {"torch", "einops"}, f"{layer} needs torch and einops only, not {name}"


def arrows_between_the_rooms() -> set[tuple[str, str]]:
    """(importing, imported) for the rooms of comfyui; a file beside the floors is a room of its own."""
    inside = LIBRARY / "comfyui"

    def room(name: str) -> str:
        return name.split(".")[2]

    arrows = set()
    for path in inside.rglob("*.py"):
        own = path.relative_to(inside).parts[0].removesuffix(".py")
        for name in imported(path):
            if name.startswith("lib_layerdiffuse.comfyui.") and room(name) != own:
                arrows.add((own, room(name)))
    return arrows


def test_floors_of_comfyui_import_downwards() -> None:
    arrows = arrows_between_the_rooms()
    for own, other in arrows:
        if own in FLOORS:
            assert FLOORS.index(own) < FLOORS.index(other) if other in FLOORS else True, f"{own} may not import {other}"
        else:
            assert other not in FLOORS, f"{own} lies below {other}"
    assert len(arrows) <= ARROWS, sorted(arrows)


@pytest.mark.parametrize("path", sorted((ROOT / "training").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_training_knows_the_lower_parts_only(path: Path) -> None:
    for name in imported(path):
        top, *rest = name.split(".")
        assert top not in COMFYUI | {"dev", "nodes", "tests"} | FORBIDDEN
        if top == "lib_layerdiffuse":
            assert rest[0] in {"nets", "pixels", "weights"}


@pytest.mark.parametrize("path", own_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_conflicting_dependency(path: Path) -> None:
    tops = {name.split(".")[0] for name in imported(path)}
    assert not tops & FORBIDDEN
    assert tops <= THIRD_PARTY | FROM_COMFYUI | COMFYUI | {"lib_layerdiffuse", "nodes", ""} | set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", sorted((ROOT / "nodes").glob("*.py")), ids=lambda path: path.name)
def test_nodes_know_comfyui_documents_and_pixels_only(path: Path) -> None:
    parts = {name.split(".")[1] for name in imported(path) if name.startswith("lib_layerdiffuse.")}
    assert parts <= {"comfyui", "documents", "pixels", "errors"}


@pytest.mark.parametrize("path", own_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_psd_tools_is_imported_only_when_a_psd_is_written(path: Path) -> None:
    writer = LIBRARY / "documents" / "psd.py"
    at_once = {name for statement in ast.parse(path.read_text(encoding="utf-8")).body for name in imported(path, statement)}
    assert path == writer or not {name for name in at_once if name.startswith("psd_tools")}
    assert "lib_layerdiffuse.documents.psd" not in at_once


def test_no_python_file_is_too_long_to_read() -> None:
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")] + list(ROOT.glob("*.py"))
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    assert not {name: count for name, count in lines.items() if count > LONGEST}


def test_requirements_name_neither_diffusers_nor_opencv() -> None:
    text = (ROOT / "requirements.txt").read_text()
    assert "diffusers" not in text and "opencv" not in text


def test_torch_only_part_runs_without_comfyui_and_imports_nothing_early() -> None:
    script = (
        "import sys, pkgutil, importlib; sys.path.insert(0, '.')\n"
        "import lib_layerdiffuse\n"
        "for part in ('nets', 'pixels', 'weights'):\n"
        "    package = importlib.import_module(f'lib_layerdiffuse.{part}')\n"
        "    for module in pkgutil.iter_modules(package.__path__):\n"
        "        importlib.import_module(f'lib_layerdiffuse.{part}.{module.name}')\n"
        "late = {'huggingface_hub', 'filelock', 'comfy', 'requests', 'httpx'} & set(sys.modules)\n"
        "assert not late, late\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
