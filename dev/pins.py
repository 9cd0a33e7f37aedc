"""Compiles dev/pins/*.in into the locks that dev/host.py installs: every version and hash, for all platforms.

`make pins` keeps the versions that the locks already name; `make pins UPGRADE=1` takes the newest that fit.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dev import host

REQUIREMENT = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ ]+)(?: ; (?P<marker>.*?))? \\$")


def compile_lock(name: str, *options: str) -> str:
    """The lock for PINS/NAME.in as uv writes it, preferring the versions in the present lock."""
    present = host.PINS / f"{name}.lock"
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / present.name
        if present.is_file():
            shutil.copyfile(present, output)
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes"]
        command += ["--python-version", "3.11", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
        subprocess.run([*command, *options, f"{name}.in", "-o", str(output)], check=True, cwd=host.PINS)
        return output.read_text(encoding="utf-8")


def blocks(lock: str) -> Iterator[tuple[re.Match[str], str]]:
    """Each requirement of a lock with its hashes; the ones that only browsers' Python needs are left out."""
    for block in filter(None, re.split(r"\n(?=[A-Za-z0-9])", lock.strip("\n"))):
        found = REQUIREMENT.match(block.partition("\n")[0])
        if found is None:
            raise ValueError(f"Not a pinned requirement: {block[:80]!r}")
        if "== 'emscripten'" not in (found["marker"] or ""):
            yield found, block


def without(lock: str, other: str) -> str:
    """`lock` without what installing `other` brings along under the same or no conditions."""
    there = {(found["name"], found["version"], found["marker"]) for found, _ in blocks(other)}
    kept = [
        block
        for found, block in blocks(lock)
        if (found["name"], found["version"], found["marker"]) not in there and (found["name"], found["version"], None) not in there
    ]
    return "\n".join(kept) + "\n"


def write(name: str, lock: str) -> None:
    path = host.PINS / f"{name}.lock"
    path.write_text(f"# Compiled from {name}.in by `make pins`; do not edit.\n{lock}", encoding="utf-8")


def main() -> int:
    options = ["--upgrade"] if "--upgrade" in sys.argv[1:] else []
    requirements = host.locate(host.DEFAULT_VERSION).tree / "requirements.txt"
    shutil.copyfile(requirements, host.PINS / f"comfyui-{host.DEFAULT_VERSION}.txt")
    host_lock = compile_lock("host", *options)
    write("host", without(host_lock, ""))
    tools_lock = compile_lock("tools", "--constraint", "host.lock", *options)
    write("tools", without(tools_lock, host_lock))
    return 0


if __name__ == "__main__":
    sys.exit(main())
