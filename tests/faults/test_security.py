"""A workflow is untrusted input, and so is a model file. What the pack may do on a machine, and what it may not (SECURITY.md)."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import ast
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folder_paths
import pytest
import torch
from safetensors.torch import save_file

from lib_layerdiffuse.weights.catalogue import CATALOGUE, WeightFile
from tests.faults.conftest import Run
from tests.faults.reports import told
from tests.unit.test_architecture import own_files

ROOT = Path(__file__).parents[2]
BUILT_IN = {"eval", "exec", "compile", "__import__", "globals", "input"}
DANGEROUS_CALLS = {"system", "popen", "spawn", "execv", "fork", "startfile"}
DANGEROUS_MODULES = {"subprocess", "marshal", "shelve", "dill", "ctypes", "code", "runpy", "pty"}
DANGEROUS_MODULES |= {"socket", "http", "urllib", "requests", "httpx", "aiohttp", "ftplib"}
# Who may reach what. Anything new here is a decision.
NETWORK = {"lib_layerdiffuse/weights/download.py"}  # huggingface_hub's session, for addresses of the catalogue
PICKLE = {"lib_layerdiffuse/weights/read.py"}  # for the name of an error
WRITES = {
    "lib_layerdiffuse/weights/fetch.py",  # downloads, below the model folder
    "lib_layerdiffuse/comfyui/files/output_files.py",  # below output and temp, where the host says
    "lib_layerdiffuse/documents/openraster.py",  # into the archive that it is given
    "lib_layerdiffuse/documents/animation.py",  # into the file that it is given
}
IMPORTS_BY_NAME = {"lib_layerdiffuse/comfyui/registration.py"}  # the host's own module `nodes`


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    """Every call in a file, by the last part of its name."""
    found = []
    for part in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(part, ast.Call):
            name = part.func.attr if isinstance(part.func, ast.Attribute) else getattr(part.func, "id", "")
            found.append((name, part))
    return found


def modules(path: Path) -> set[str]:
    names: set[str] = set()
    for part in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(part, ast.Import):
            names |= {alias.name.split(".")[0] for alias in part.names}
        elif isinstance(part, ast.ImportFrom) and not part.level:
            names.add((part.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("path", own_files(), ids=name_of)
def test_no_code_from_outside_and_no_shell(path: Path) -> None:
    for name, call in calls(path):
        assert name not in (BUILT_IN if isinstance(call.func, ast.Name) else DANGEROUS_CALLS), f"line {call.lineno}: {name}"
        if name == "load" and isinstance(call.func, ast.Attribute):
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert options.get("weights_only") == "True", f"line {call.lineno}: pickles may run code"
        if name == "import_module":
            assert name_of(path) in IMPORTS_BY_NAME
    assert not modules(path) & DANGEROUS_MODULES
    assert "pickle" not in modules(path) or name_of(path) in PICKLE
    assert "huggingface_hub" not in modules(path) or name_of(path) in NETWORK


@pytest.mark.parametrize("path", own_files(), ids=name_of)
def test_files_are_written_in_two_places_only(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    writing = {
        "write_text",
        "write_bytes",
        "mkdir",
        "makedirs",
        "unlink",
        "rmtree",
        "rename",
        "symlink_to",
        "chmod",
        "truncate",
        "save_file",
    }
    for name, call in calls(path):
        mode = next((arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)), "r")
        opens_to_write = name in ("open", "FileIO") and set(mode) & set("wax+")
        assert not (name in writing or opens_to_write) or name_of(path) in WRITES, f"line {call.lineno}: {name}"
    assert "tempfile" not in text


def test_downloads_are_pinned_and_come_from_the_catalogue() -> None:
    for file in CATALOGUE:
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert re.fullmatch(r"[0-9a-f]{40}|main", file.revision)
        assert re.fullmatch(r"https://huggingface\.co/[\w.-]+/[\w.-]+/resolve/[\w]+/[\w.-]+", file.url), file.url
    assert {file.name for file in CATALOGUE if file.revision == "main"} == {"TransparentVAE.pth", "layerlora.safetensors"}
    # Only the catalogue makes addresses, and only fetch asks for them.
    users = {name_of(path) for path in own_files() if ".url" in path.read_text(encoding="utf-8")}
    assert users == {"lib_layerdiffuse/weights/fetch.py", "lib_layerdiffuse/weights/errors.py"}


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", "a\\b", "", ".hidden", "x\0", "x\n", "c:x"])
def test_the_catalogue_cannot_name_another_folder(name: str) -> None:
    good = CATALOGUE[0]
    with pytest.raises(ValueError, match="not a plain file name"):
        WeightFile(name, good.family, good.roles, good.repo, good.revision, good.size, good.sha256, good.licence)


# --- names from a workflow -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def secret(layer_models: Path, tmp_path: Path) -> Path:
    """A decoder outside the model folders, which would be read well if it were found."""
    path = layer_models.parent / "secret.safetensors"
    shutil.copy(layer_models / "vae_transparent_decoder.safetensors", path)
    (layer_models / "notes.txt").write_text("not for you")
    return path


def evil(secret: Path, folder: Path) -> list[Any]:
    return [
        str(secret),
        f"../{secret.name}",
        f"..\\{secret.name}",
        f"x/../../{secret.name}",
        f"./../{secret.name}",
        f"/../{secret.name}",
        f"{folder}/../{secret.name}",
        f"~/{secret.name}",
        "/etc/passwd",
        "/dev/zero",
        "/proc/self/mem",
        "notes.txt",
        "vae_transparent_decoder.safetensors\0.txt",
        "\0",
        "",
        ".",
        "..",
        "con",
        "nul.safetensors",
        "file:///etc/passwd",
        "https://example.com/x.safetensors",
        "\\\\server\\share\\x.safetensors",
        "x" * 5000 + ".safetensors",
        7,
        ["auto"],
    ]


FILES = {
    "DiaphaneTransparent": ("file", {"method": "auto", "weight": 1.0, "start": 0.0, "end": 1.0}),
    "DiaphaneVAEDecode": ("decoder_file", {"samples": {"samples": torch.zeros(1, 4, 8, 8)}, "passes": 1, "tile_size": 0, "family": "auto"}),
    "DiaphaneVAEEncode": ("encoder_file", {"image": torch.zeros(1, 64, 64, 4), "family": "auto", "offset_scale": 300.0}),
}


@pytest.mark.parametrize("node_id", FILES)
def test_file_names_do_not_lead_out_of_the_model_folders(
    run: Run, model: Callable[[str], Any], vae: Callable[[str], Any], secret: Path, layer_models: Path, node_id: str
) -> None:
    """The host checks what stands in a widget; over a wire comes anything."""
    setting, inputs = FILES[node_id]
    owner = {"model": model("SDXL")} if setting == "file" else {"vae": vae("SDXL")}
    for name in evil(secret, layer_models):
        told(lambda name=name: run(node_id, **owner, **inputs, **{setting: name}), ["There is no file", "Choose another one, or auto"])
    assert run(node_id, **owner, **inputs, **{setting: "auto"})


def test_what_is_offered_is_in_the_model_folders(node_classes: dict[str, Any], secret: Path, layer_models: Path) -> None:
    [combo] = [item for item in node_classes["DiaphaneTransparent"].define_schema().inputs if item.id == "file"]
    assert set(combo.options) - {"auto"} == {path.name for path in layer_models.iterdir() if path.suffix in (".safetensors", ".pth")}


# --- pickles ---------------------------------------------------------------------------------------------------------------------------


class Trap:
    def __init__(self, call: Any, *args: Any):
        self.call, self.args = call, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.args


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
@pytest.mark.parametrize("how", ["torch", "old torch", "plain"])
@pytest.mark.parametrize("call", ["mkdir", "eval", "getattr"])
def test_pickles_run_no_code(
    run: Run, vae: Callable[[str], Any], layer_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, how: str, call: str
) -> None:
    sprung = tmp_path / "sprung"
    trap = {
        "mkdir": Trap(os.mkdir, str(sprung)),
        "eval": Trap(eval, f"__import__('os').mkdir({str(sprung)!r})"),
        "getattr": Trap(getattr, "text", "upper"),
    }[call]
    path = tmp_path / name
    if how == "plain":
        path.write_bytes(pickle.dumps({"a": trap}))
    else:
        torch.save({"a": trap}, path, _use_new_zipfile_serialization=how == "torch")
    folder_paths.folder_names_and_paths["layer_model"][0].insert(0, str(tmp_path))
    inputs = FILES["DiaphaneVAEDecode"][1]
    told(lambda: run("DiaphaneVAEDecode", vae=vae("SDXL"), **inputs, decoder_file=name), [name])
    assert not sprung.exists()


def test_keys_and_names_of_a_file_are_only_text(run: Run, vae: Callable[[str], Any], layer_models: Path, tmp_path: Path) -> None:
    """A message quotes what a file holds; it stays one short line."""
    folder_paths.folder_names_and_paths["layer_model"][0].insert(0, str(tmp_path))
    for key in ("a\nb", "\x1b[2J", "<script>alert(1)</script>", "%s%n{0.__class__}", "k" * 10_000):
        save_file({key: torch.zeros(1), f"{key}2": torch.zeros(1)}, tmp_path / "odd.safetensors")
        message = told(
            lambda: run("DiaphaneVAEDecode", vae=vae("SDXL"), **FILES["DiaphaneVAEDecode"][1], decoder_file="odd.safetensors"),
            ["odd.safetensors"],
        )
        assert message.isprintable(), message
