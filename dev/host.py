"""Builds the ComfyUI that this project is developed against, or finds the one that COMFYUI_DIR names.

    python3 dev/host.py                    build what is missing under .comfyui/
    python3 dev/host.py --version 0.27.0   the same for another host version, under .comfyui/hosts/
    python3 dev/host.py run -m pytest      build what is missing, then run the host's interpreter
    python3 dev/host.py where              say which tree and which interpreter are used
    python3 dev/host.py clean              remove what was built; models and pictures stay

Needs nothing but Python 3.11 or newer. Every step is skipped while its inputs are unchanged, and says so in one line when it runs.
A COMFYUI_DIR is never written to: the test tools go to .comfyui/tools/ and reach its interpreter through PYTHONPATH.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

# So that this file also runs as a plain script.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from dev.source import PERSONAL, SOURCES, download, tree_version, unpack
from dev.steps import (
    HostError,
    ToolError,
    digest,
    link_directory,
    only_one_builder,
    python_and_platform,
    read_stamp,
    remove,
    remove_link,
    say,
    sha256_of,
    stamped_step,
    step,
    tool,
    write_stamp,
)

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".comfyui"
PINS = ROOT / "dev" / "pins"
PACK = "diaphane"
OLDEST_PYTHON = (3, 11)

DEFAULT_VERSION = "0.30.0"


@dataclass(frozen=True)
class Host:
    """A ComfyUI tree, the interpreter that runs it, and, if it is not ours, the folder that holds the test tools."""

    tree: Path
    python: Path
    version: str
    tools: Path | None = None

    def environment(self) -> dict[str, str]:
        """The environment for this project's own scripts and tests: they can import `dev`, `lib_layerdiffuse` and the tools.

        There locate() finds this host, too, whatever version was asked for here.
        """
        paths = [str(ROOT), *([str(self.tools)] if self.tools else []), *filter(None, [os.environ.get("PYTHONPATH")])]
        ours = {} if self.tools else {"DIAPHANE_HOST": self.version}
        return {**os.environ, **ours, "PYTHONPATH": os.pathsep.join(paths)}

    def server_environment(self) -> dict[str, str]:
        """The environment for ComfyUI itself: as an artist has it, so that a pack cannot import what only this repository's root offers."""
        return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(self, arguments: Sequence[str]) -> int:
        """Runs the interpreter in the repository root; returns its exit status, except where it takes over this process."""
        command = [str(self.python), *arguments]
        if os.name == "nt":
            return subprocess.call(command, cwd=ROOT, env=self.environment())
        # Signals then reach what runs, not a parent that would leave it behind.
        os.chdir(ROOT)
        os.execve(command[0], command, self.environment())


# --- where things are -------------------------------------------------------------------------------------------------------------------


def locate(version: str | None = None) -> Host:
    """The host that commands use: COMFYUI_DIR if set, else ours. Builds nothing; HostError if it is not there.

    Without a version, DIAPHANE_HOST (a ComfyUI version) decides, else DEFAULT_VERSION.
    """
    directory = os.environ.get("COMFYUI_DIR")
    if directory:
        return _foreign_host(Path(directory).expanduser().resolve())
    version = _wanted(version)
    home = _home(version)
    host = Host(home / "ComfyUI", venv_python(home / "venv"), version)
    if not (host.tree / "main.py").is_file() or not host.python.exists():
        raise HostError(f"ComfyUI {version} is not built yet. Run `make host` (or `python3 dev/host.py --version {version}`).")
    return host


def ensure(version: str | None = None) -> Host:
    """The host that commands use, built or brought up to date first. Raises HostError."""
    if os.environ.get("COMFYUI_DIR"):
        return _with_tools(locate())
    if sys.version_info < OLDEST_PYTHON:
        raise HostError(
            f"Python 3.11 or newer is needed, this is {platform.python_version()}. Name another one: make PYTHON=python3.12 ..."
        )
    version = _wanted(version)
    with only_one_builder(HOME):
        _build(DEFAULT_VERSION)
        if version != DEFAULT_VERSION:
            _build(version)
    return locate(version)


def venv_python(venv: Path) -> Path:
    return venv / "Scripts" / "python.exe" if os.name == "nt" else venv / "bin" / "python"


def _wanted(version: str | None) -> str:
    version = version or os.environ.get("DIAPHANE_HOST") or DEFAULT_VERSION
    if version not in SOURCES:
        raise HostError(f"ComfyUI {version} is not among the versions that can be built: {', '.join(SOURCES)}. Use COMFYUI_DIR for others.")
    return version


def _home(version: str) -> Path:
    return HOME if version == DEFAULT_VERSION else HOME / "hosts" / version


def _foreign_host(tree: Path) -> Host:
    version = tree_version(tree)
    named = os.environ.get("COMFYUI_PYTHON")
    candidates = [Path(named).expanduser()] if named else [venv_python(tree / ".venv"), venv_python(tree / "venv"), Path(sys.executable)]
    # Not resolve(): the real path behind a venv's interpreter is the one without its packages.
    python = next((path.absolute() for path in candidates if path.exists()), None)
    if python is None:
        raise HostError(f"COMFYUI_PYTHON names {named}, which does not exist.")
    tools = HOME / "tools" / digest(str(tree), str(python))[:12]
    return Host(tree, python, version, tools)


# --- steps ------------------------------------------------------------------------------------------------------------------------------


def _build(version: str) -> None:
    home, source = _home(version), SOURCES[version]
    venv, tree = home / "venv", home / "ComfyUI"
    python = venv_python(venv)
    archive = HOME / "downloads" / source.filename
    label = "" if version == DEFAULT_VERSION else f" for {version}"
    home.mkdir(parents=True, exist_ok=True)

    if read_stamp(venv / ".diaphane-venv") != python_and_platform() or (venv / ".diaphane-unfinished").exists() or not _venv_works(python):
        step(f"interpreter{label}", partial(_make_venv, venv))
    if version != DEFAULT_VERSION:
        _look_through(venv)

    if read_stamp(tree / ".diaphane-source") != source.sha256:
        if not archive.is_file() or sha256_of(archive) != source.sha256:
            step(f"source of ComfyUI {version}", partial(download, python, source, archive))
        unpacking = partial(unpack, archive, source, tree)
        stamped_step(f"tree of ComfyUI {version}", tree / ".diaphane-source", source.sha256, unpacking)

    if version == DEFAULT_VERSION:
        _install_locks(python, venv, ["host", "tools"])
    else:
        _install_requirements(python, venv, tree / "requirements.txt", label)

    link_directory(ROOT, tree / "custom_nodes" / PACK)
    if tree_version(tree) != version:
        raise HostError(f"{tree} says that it is ComfyUI {tree_version(tree)}, expected {version}.")


def _venv_works(python: Path) -> bool:
    """False too when the Python that the venv was made from is gone."""
    return python.exists() and subprocess.run([str(python), "-c", "import pip"], capture_output=True, check=False).returncode == 0


def _make_venv(venv: Path) -> None:
    if venv.exists():
        shutil.rmtree(venv)
    # From inside a venv, sys.executable would tie the new one to it.
    tool([getattr(sys, "_base_executable", sys.executable), "-m", "venv", str(venv)])
    write_stamp(venv / ".diaphane-venv", python_and_platform())


def _look_through(venv: Path) -> None:
    """Another version's interpreter sees the default one's packages behind its own: 200 MB instead of 6 GB each."""
    own, base = _site_packages(venv), _site_packages(_home(DEFAULT_VERSION) / "venv")
    # Relative, and written every time: both may have been moved since.
    (own / "diaphane-base.pth").write_text(f"{os.path.relpath(base, own)}\n")


def _site_packages(venv: Path) -> Path:
    python = [str(venv_python(venv)), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return Path(subprocess.run(python, capture_output=True, text=True, check=True).stdout.strip())


def _install_locks(python: Path, venv: Path, names: Sequence[str]) -> None:
    locks = {name: (PINS / f"{name}.lock").read_bytes() for name in names}
    for name, content in locks.items():
        # A lock lists everything that it needs, so pip has nothing to resolve.
        command = [str(python), "-m", "pip", "install", "--no-deps", "--require-hashes", "-r", str(PINS / f"{name}.lock")]
        stamped_step(
            f"packages of {name}.lock", venv / f".diaphane-{name}", digest(content, python_and_platform()), partial(_install, venv, command)
        )
    check = partial(tool, [str(python), "-m", "pip", "check"])
    stamped_step("packages fit together", venv / ".diaphane-check", digest(*locks.values(), python_and_platform()), check)


def _install_requirements(python: Path, venv: Path, requirements: Path, label: str) -> None:
    state = digest(requirements.read_bytes(), (PINS / "host.lock").read_bytes(), python_and_platform())
    command = [str(python), "-m", "pip", "install", "-r", str(requirements)]
    stamped_step(f"packages{label}", venv / ".diaphane-host", state, partial(_install, venv, command))


def _install(venv: Path, command: Sequence[str]) -> None:
    """Runs pip. If this process is killed meanwhile, what it was writing cannot be trusted, and the next run makes the venv anew."""
    unfinished = venv / ".diaphane-unfinished"
    unfinished.touch()
    try:
        tool(command)
    except ToolError:
        # pip itself has taken back what it could not complete.
        unfinished.unlink()
        raise
    unfinished.unlink()


def _with_tools(host: Host) -> Host:
    """Puts the test and lint tools beside a tree that is not ours, for its interpreter."""
    if host.tools is None:
        return host
    probe = "import importlib.util, sys; print(sys.version, bool(importlib.util.find_spec('torch')), bool(importlib.util.find_spec('pip')))"
    answer = subprocess.run([str(host.python), "-c", probe], capture_output=True, text=True, check=False)
    version, has_torch, has_pip = answer.stdout.rsplit(maxsplit=2) if answer.returncode == 0 else ("", "False", "False")
    if has_torch != "True":
        raise HostError(f"{host.python} has no torch, so it does not run {host.tree}. Name the interpreter that does: COMFYUI_PYTHON=...")
    lock = PINS / "tools.lock"
    pip = [str(host.python), "-m", "pip"] if has_pip == "True" else [sys.executable, "-m", "pip", "--python", str(host.python)]
    command = [*pip, "install", "--no-deps", "--require-hashes", "--upgrade", "--target", str(host.tools), "-r", str(lock)]
    with only_one_builder(HOME):
        state = digest(lock.read_bytes(), version)
        stamped_step(f"tools for ComfyUI {host.version}", host.tools / ".diaphane-tools", state, partial(tool, command))
    return host


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
        say(f"kept {path.relative_to(ROOT)}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Builds the ComfyUI that this project is developed against.")
    parser.add_argument("--version", choices=list(SOURCES), help=f"host version (default: {DEFAULT_VERSION})")
    parser.add_argument("command", nargs="?", choices=["build", "run", "where", "clean"], default="build")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="for run: the interpreter's arguments")
    options = parser.parse_args()
    try:
        if options.command == "clean":
            clean()
            return 0
        host = locate(options.version) if options.command == "where" else ensure(options.version)
    except HostError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. To go on: make host", file=sys.stderr)
        return 130
    if options.command == "run":
        return host.run(options.arguments)
    say(f"ComfyUI {host.version} in {host.tree}\npython  {host.python}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
