"""The tests of what needs torch and no ComfyUI, on another Python: `make test-on-python-3.12`.

Takes `python3.12` from the PATH, or the newest 3.12 that pyenv has. Its packages go to .comfyui/pythons/.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from dev.comfyui import HOME, PINS, ROOT, venv_python
from dev.steps import SetupError, digest, only_one_builder, stamped_step, tool

REQUIREMENTS = (ROOT / "requirements.txt", ROOT / "training" / "requirements.txt")
TEST_TOOLS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "websocket-client")


def find_python(version: str) -> Path:
    """An interpreter of a version such as "3.12". SetupError if there is none that starts."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    kept = sorted(pyenv.glob(f"versions/{version}.*/bin/python"), key=lambda path: [int(n) for n in re.findall(r"\d+", path.parts[-3])])
    for candidate in filter(None, [shutil.which(f"python{version}"), *reversed(kept)]):
        # A shim of pyenv is there for versions that are not switched on, too.
        answer = subprocess.run([candidate, "-c", "import sys; print(*sys.version_info[:2], sep='.')"], capture_output=True, text=True)
        if answer.stdout.strip() == version:
            return Path(candidate)
    raise SetupError(f"No Python {version} found. Put python{version} on the PATH, or install it with pyenv.")


def ensure(version: str) -> Path:
    """The interpreter, with what the torch-only part and its tests need. Raises SetupError."""
    venv = HOME / "pythons" / version
    torch = next(line for line in (PINS / "host.in").read_text().splitlines() if line.startswith("torch=="))
    packages = [line for path in REQUIREMENTS for line in path.read_text().splitlines() if line != "torch"] + [torch, *TEST_TOOLS]

    def make() -> None:
        tool(find_python(version), "-m", "venv", "--clear", venv)
        tool(venv_python(venv), "-m", "pip", "install", *packages)

    with only_one_builder(HOME):
        stamped_step(f"packages for Python {version}", venv / ".diaphane", digest(*packages), make)
    return venv_python(venv)


def main() -> int:
    version, *arguments = sys.argv[1:]
    try:
        python = ensure(version)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    return subprocess.call([str(python), "-m", "pytest", *arguments], cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main())
