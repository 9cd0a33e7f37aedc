"""GIMP without a window: what another paint program makes of our layered files. Script-Fu of GIMP 2.10, which is Debian 12's.

Only full tests use it. GIMP_BIN names another gimp-console.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from dev.debian import ensure

NAMES = ("gimp-console", "gimp-console-2.10")
VERSION = "version 2.10"
SCRIPT = """
(define (show-layer layer)
  (let ((offsets (gimp-drawable-offsets layer)))
    (gimp-message (string-append "layer " (car (gimp-item-get-name layer)) "|" (number->string (car offsets)) "|"
      (number->string (cadr offsets)) "|" (number->string (round (car (gimp-layer-get-opacity layer))))))))
(define (flatten from to)
  (let* ((image (car (gimp-file-load RUN-NONINTERACTIVE from from))))
    (gimp-message (string-append "file " from))
    (for-each show-layer (vector->list (cadr (gimp-image-get-layers image))))
    (let ((merged (car (gimp-image-merge-visible-layers image CLIP-TO-IMAGE))))
      (gimp-layer-resize-to-image-size merged)
      (file-png-save-defaults RUN-NONINTERACTIVE image merged to to))
    (gimp-image-delete image)))
"""


def find_gimp() -> Path | None:
    """GIMP_BIN if set, else gimp-console; None if there is none of the version whose scripts this speaks."""
    named = os.environ.get("GIMP_BIN")
    found = [named] if named else [shutil.which(name) for name in NAMES]
    return next((Path(path) for path in found if path and _speaks(path)), None)


@functools.cache
def _speaks(path: str) -> bool:
    return VERSION in subprocess.run([path, "--version"], capture_output=True, text=True, timeout=120, check=False).stdout


def ensure_gimp() -> Path | None:
    """GIMP, installed first (Debian's) if there is none and the machine allows it; None if it does not. Raises SetupError if that fails."""
    return ensure(find_gimp, "gimp", name="GIMP for tests", variable="GIMP_BIN")


class Gimp:
    """One GIMP whose settings live in `folder`."""

    def __init__(self, program: Path, folder: Path):
        self.program = program
        self.folder = folder

    def flatten(self, files: Sequence[Path]) -> dict[Path, list[str]]:
        """Open files and write the flat picture of each beside it, FILE.flat.png.

        -> the layers of each, the topmost first, as "name|x|y|opacity in percent".
        """
        calls = [f"(flatten {json.dumps(str(path))} {json.dumps(f'{path}.flat.png')})" for path in files]
        layers: dict[Path, list[str]] = {}
        for line in self._run(*calls).splitlines():
            # GIMP puts the name of the plug-in before every message.
            _, _, message = line.partition(": ")
            kind, _, text = message.partition(" ")
            if kind == "file":
                layers[Path(text)] = []
            elif kind == "layer":
                layers[Path(next(reversed(layers)))].append(text.replace(".0", ""))
        return layers

    def knows(self, procedure: str) -> bool:
        return "known yes" in self._run(f'(if (defined? \'{procedure}) (gimp-message "known yes"))')

    def _run(self, *calls: str) -> str:
        script = " ".join([SCRIPT, *calls, "(gimp-quit 0)"])
        command = [str(self.program), "--no-interface", "--no-data", "--no-fonts", "--batch", script]
        environment = {**os.environ, "GIMP2_DIRECTORY": str(self.folder), "LC_ALL": "C.UTF-8"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=540, check=True)
        return done.stdout + done.stderr
