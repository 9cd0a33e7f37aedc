"""The tests of what needs torch and no ComfyUI, on another Python: `make test-on-python-3.12`.

Takes `python3.12` from the PATH, or the newest 3.12 that pyenv has. Its packages go to .comfyui/pythons/.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from dev.host import HOME, PINS, ROOT, venv_python
from dev.steps import HostError, digest, only_one_builder, stamped_step, tool

REQUIREMENTS = (ROOT / "requirements.txt", ROOT / "training" / "requirements.txt")
TEST_TOOLS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "websocket-client")


def find_python(version: str) -> Path:
    """An interpreter of a version such as "3.12". HostError if there is none that starts."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    kept = sorted(pyenv.glob(f"versions/{version}.*/bin/python"), key=lambda path: [int(n) for n in re.findall(r"\d+", path.parts[-3])])
    candidates = [found for found in [shutil.which(f"python{version}"), *reversed(kept)] if found]
    for candidate in candidates:
        # A shim of pyenv is there for versions that are not switched on, too.
        answer = subprocess.run([str(candidate), "-c", "import sys; print(*sys.version_info[:2], sep='.')"], capture_output=True, text=True)
        if answer.stdout.strip() == version:
            return Path(candidate)
    raise HostError(f"No Python {version} found. Put python{version} on the PATH, or install it with pyenv.")


def ensure(version: str) -> Path:
    """The interpreter, with what the torch-only part and its tests need. Raises HostError."""
    venv = HOME / "pythons" / version
    torch = next(line for line in (PINS / "host.in").read_text().splitlines() if line.startswith("torch=="))
    lines = [line for path in REQUIREMENTS for line in path.read_text().splitlines() if line != "torch"]
    with only_one_builder(HOME):
        state = digest(*lines, torch, *TEST_TOOLS)
        stamped_step(
            f"packages for Python {version}", venv / ".diaphane", state, partial(_make, version, venv, [*lines, torch, *TEST_TOOLS])
        )
    return venv_python(venv)


def _make(version: str, venv: Path, packages: list[str]) -> None:
    if venv.exists():
        shutil.rmtree(venv)
    tool([str(find_python(version)), "-m", "venv", str(venv)])
    tool([str(venv_python(venv)), "-m", "pip", "install", *packages])


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs tests on another Python.")
    parser.add_argument("version", help="such as 3.12")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="pytest's")
    options = parser.parse_args()
    try:
        python = ensure(options.version)
    except HostError as error:
        print(error, file=sys.stderr)
        return 1
    return subprocess.call([str(python), "-m", "pytest", *options.arguments], cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main())
