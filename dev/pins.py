"""Compiles dev/pins/*.in into the locks that dev/comfyui.py installs: every version and hash, for all platforms.

`make pins` keeps the versions that the locks already name; `make pins UPGRADE=1` takes the newest that fit.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

from dev.comfyui import DEFAULT_VERSION, PINS, locate


def compile_lock(name: str, *options: str) -> None:
    """Writes PINS/NAME.lock for PINS/NAME.in."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--python-version", "3.11"]
    command += ["--custom-compile-command", "make pins", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
    subprocess.run([*command, *sys.argv[1:], *options, f"{name}.in", "-o", f"{name}.lock"], check=True, cwd=PINS)


def main() -> None:
    shutil.copyfile(locate(DEFAULT_VERSION).tree / "requirements.txt", PINS / f"comfyui-{DEFAULT_VERSION}.txt")
    compile_lock("host")
    # The tools also go beside a ComfyUI of someone's own, which has its own torch.
    there = re.findall(r"^([\w.-]+)==", (PINS / "host.lock").read_text(), re.MULTILINE)
    compile_lock("tools", "--constraint", "host.lock", *(f"--no-emit-package={package}" for package in there))


if __name__ == "__main__":
    main()
