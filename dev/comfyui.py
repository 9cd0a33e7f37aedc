"""Builds the ComfyUI that this project is developed against, or finds the one that COMFYUI_DIR names.

    python3 dev/comfyui.py                    build what is missing under .comfyui/
    python3 dev/comfyui.py --version 0.27.0   the same for another version, under .comfyui/hosts/
    python3 dev/comfyui.py run -m pytest      build what is missing, then run its interpreter
    python3 dev/comfyui.py where              say which tree and which interpreter are used
    python3 dev/comfyui.py clean              remove what was built; models and pictures stay

Needs nothing but Python 3.11 or newer. Every step is skipped while its inputs are unchanged, and says so in one line when it runs.
A COMFYUI_DIR is never written to: the test tools go to .comfyui/tools/ and reach its interpreter through PYTHONPATH.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# So that this file also runs as a plain script.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from dev.source import PERSONAL, SOURCES, install, tree_version
from dev.steps import SetupError, digest, link_directory, only_one_builder, remove, remove_link, stamped_step, tool

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".comfyui"
PINS = ROOT / "dev" / "pins"
PACK = "diaphane"
DEFAULT_VERSION = "0.30.0"
OLDEST_PYTHON = (3, 11)
THIS_PYTHON = f"{platform.python_implementation()} {sys.version_info[0]}.{sys.version_info[1]} {platform.system()} {platform.machine()}"


@dataclass(frozen=True)
class ComfyUI:
    """A ComfyUI tree, the interpreter that runs it, and, if it is not ours, the folder that holds the test tools."""

    tree: Path
    python: Path
    version: str
    tools: Path | None = None

    def environment(self) -> dict[str, str]:
        """The environment for this project's own scripts and tests: they can import `dev`, `lib_layerdiffuse` and the tools.

        There locate() finds this ComfyUI, too, whatever version was asked for here.
        """
        paths = [str(ROOT), *([str(self.tools)] if self.tools else []), *filter(None, [os.environ.get("PYTHONPATH")])]
        ours = {} if self.tools else {"DIAPHANE_COMFYUI": self.version}
        return {**os.environ, **ours, "PYTHONPATH": os.pathsep.join(paths)}

    def server_environment(self) -> dict[str, str]:
        """The environment for ComfyUI itself: as an artist has it, so that a pack cannot import what only this repository's root offers."""
        return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def has_gpu(self) -> bool:
        """Whether its torch finds a device other than the CPU."""
        probe = (
            "import torch; xpu = getattr(torch, 'xpu', None);"
            "print(torch.cuda.is_available() or torch.backends.mps.is_available() or bool(xpu and xpu.is_available()))"
        )
        return _answer(str(self.python), probe) == "True"

    def run(self, arguments: Sequence[str]) -> int:
        """Runs the interpreter in the repository root; returns its exit status, except where it takes over this process."""
        command = [str(self.python), *arguments]
        if os.name == "nt":
            return subprocess.call(command, cwd=ROOT, env=self.environment())
        # Signals then reach what runs, not a parent that would leave it behind.
        os.chdir(ROOT)
        os.execve(command[0], command, self.environment())


@functools.cache
def _answer(python: str, script: str) -> str:
    return subprocess.run([python, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False).stdout.strip()


# --- where things are -------------------------------------------------------------------------------------------------------------------


def locate(version: str | None = None) -> ComfyUI:
    """The ComfyUI that commands use: COMFYUI_DIR if set, else ours. Builds nothing; SetupError if it is not there.

    Without a version, DIAPHANE_COMFYUI (a version) decides, else DEFAULT_VERSION.
    """
    directory = os.environ.get("COMFYUI_DIR")
    if directory:
        return _someones_own(Path(directory).expanduser().resolve())
    version = _wanted(version)
    found = ComfyUI(_home(version) / "ComfyUI", venv_python(_home(version) / "venv"), version)
    if not (found.tree / "main.py").is_file() or not found.python.exists():
        raise SetupError(f"ComfyUI {version} is not built yet. Run `make host` (or `python3 dev/comfyui.py --version {version}`).")
    return found


def ensure(version: str | None = None) -> ComfyUI:
    """The ComfyUI that commands use, built or brought up to date first. Raises SetupError."""
    if os.environ.get("COMFYUI_DIR"):
        found = locate()
        _add_tools(found)
        return found
    if sys.version_info < OLDEST_PYTHON:
        raise SetupError(
            f"Python 3.11 or newer is needed, this is {platform.python_version()}. Name another one: make PYTHON=python3.12 ..."
        )
    version = _wanted(version)
    with only_one_builder(HOME):
        for needed in dict.fromkeys((DEFAULT_VERSION, version)):
            _build(needed)
    return locate(version)


def venv_python(venv: Path) -> Path:
    return venv / "Scripts" / "python.exe" if os.name == "nt" else venv / "bin" / "python"


def _wanted(version: str | None) -> str:
    version = version or os.environ.get("DIAPHANE_COMFYUI") or DEFAULT_VERSION
    if version not in SOURCES:
        raise SetupError(
            f"ComfyUI {version} is not among the versions that can be built: {', '.join(SOURCES)}. Use COMFYUI_DIR for others."
        )
    return version


def _home(version: str) -> Path:
    return HOME if version == DEFAULT_VERSION else HOME / "hosts" / version


def _someones_own(tree: Path) -> ComfyUI:
    version = tree_version(tree)
    named = os.environ.get("COMFYUI_PYTHON")
    candidates = [Path(named).expanduser()] if named else [venv_python(tree / ".venv"), venv_python(tree / "venv"), Path(sys.executable)]
    # Not resolve(): the real path behind a venv's interpreter is the one without its packages.
    python = next((path.absolute() for path in candidates if path.exists()), None)
    if python is None:
        raise SetupError(f"COMFYUI_PYTHON names {named}, which does not exist.")
    return ComfyUI(tree, python, version, tools=HOME / "tools" / digest(str(tree), str(python))[:12])


# --- steps ------------------------------------------------------------------------------------------------------------------------------


def _build(version: str) -> None:
    home, label = _home(version), "" if version == DEFAULT_VERSION else f" for {version}"
    venv, tree = home / "venv", home / "ComfyUI"
    python, stamp = venv_python(venv), venv / ".diaphane-venv"
    home.mkdir(parents=True, exist_ok=True)

    if not python.exists():
        stamp.unlink(missing_ok=True)
    # From inside a venv, sys.executable would tie the new one to it.
    base_python = getattr(sys, "_base_executable", sys.executable)
    stamped_step(f"interpreter{label}", stamp, THIS_PYTHON, functools.partial(tool, base_python, "-m", "venv", "--clear", venv))
    getting = functools.partial(install, version, tree, HOME / "downloads", python)
    stamped_step(f"source of ComfyUI {version}", tree / ".diaphane-source", SOURCES[version][1], getting)

    locks = [PINS / "host.lock", PINS / "tools.lock"]
    # A lock lists everything that it needs, so pip has nothing to resolve.
    options = ["--no-deps", "--require-hashes"]
    if version != DEFAULT_VERSION:
        # Behind its own packages it sees the default version's: 200 MB instead of 6 GB each. Relative: both may be moved.
        own, base = (Path(sysconfig.get_path("purelib", "venv", {"base": str(where / "venv")})) for where in (home, HOME))
        (own / "diaphane-base.pth").write_text(f"{os.path.relpath(base, own)}\n")
        locks, options = [tree / "requirements.txt"], []

    def install_packages() -> None:
        # If this is cut short, what pip was writing cannot be trusted: without its stamp the interpreter is made anew.
        stamp.unlink()
        tool(python, "-m", "pip", "install", *options, *(argument for lock in locks for argument in ("-r", lock)))
        stamp.write_text(f"{THIS_PYTHON}\n")
        if version == DEFAULT_VERSION:
            tool(python, "-m", "pip", "check")

    state = digest(*(lock.read_bytes() for lock in [*locks, PINS / "host.lock"]), THIS_PYTHON)
    stamped_step(f"packages{label}", venv / ".diaphane-packages", state, install_packages)

    link_directory(ROOT, tree / "custom_nodes" / PACK)
    if tree_version(tree) != version:
        raise SetupError(f"{tree} says that it is ComfyUI {tree_version(tree)}, expected {version}.")


def _add_tools(found: ComfyUI) -> None:
    """Puts the test and lint tools beside a tree that is not ours, for its interpreter."""
    assert found.tools is not None
    probe = "import importlib.util as util, sys; print(sys.version if util.find_spec('torch') else '')"
    version = _answer(str(found.python), probe)
    if not version:
        raise SetupError(
            f"{found.python} has no torch, so it does not run {found.tree}. Name the interpreter that does: COMFYUI_PYTHON=..."
        )
    lock = PINS / "tools.lock"
    # With a pip of our own: theirs may have none.
    pip = [sys.executable, "-m", "pip", "--python", found.python, "install"]
    command = [*pip, "--no-deps", "--require-hashes", "--upgrade", "--target", found.tools, "-r", lock]
    with only_one_builder(HOME):
        state = digest(lock.read_bytes(), version)
        stamped_step(f"tools for ComfyUI {found.version}", found.tools / ".diaphane-tools", state, functools.partial(tool, *command))


def clean() -> None:
    """Removes everything that was built under .comfyui/, except the folders that may hold someone's own files."""
    kept: list[Path] = []
    for tree in [HOME / "ComfyUI", *HOME.glob("hosts/*/ComfyUI")]:
        if not tree.is_dir():
            continue
        remove_link(tree / "custom_nodes" / PACK)
        for entry in tree.iterdir():
            if entry.name in PERSONAL:
                kept.append(entry)
            elif entry.name != "extra_model_paths.yaml":
                remove(entry)
    trees = {path.parent for path in kept}
    for entry in [*HOME.glob("hosts/*/*"), *HOME.glob("*")]:
        if entry not in trees and not any(entry in tree.parents for tree in trees):
            remove(entry)
    for path in kept:
        print(f"kept {path.relative_to(ROOT)}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Builds the ComfyUI that this project is developed against.")
    parser.add_argument("--version", choices=list(SOURCES), help=f"of ComfyUI (default: {DEFAULT_VERSION})")
    parser.add_argument("command", nargs="?", choices=["build", "run", "where", "clean"], default="build")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="for run: the interpreter's arguments")
    options = parser.parse_args()
    try:
        if options.command == "clean":
            clean()
            return 0
        found = locate(options.version) if options.command == "where" else ensure(options.version)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. To go on: make host", file=sys.stderr)
        return 130
    if options.command == "run":
        return found.run(options.arguments)
    print(f"ComfyUI {found.version} in {found.tree}\npython  {found.python}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
