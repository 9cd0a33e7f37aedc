"""GIMP opens our layered files and makes the same picture of them. GIMP_BIN names another gimp-console than that of the PATH.

The scripts are those of GIMP 2.10, which is Debian 12's.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dev.debian import ensure

pytestmark = pytest.mark.full

# GIMP has formulae of its own for soft light and the four of hue, saturation, colour and luminosity, and blends add, dodge and burn in
# linear light: there psd-tools is the judge (tests/unit/test_photoshop_blending.py).
SAME = ("normal", "multiply", "screen", "overlay", "hard light", "darken", "lighten", "difference", "exclusion")


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
    return ensure(find_gimp, "gimp", "GIMP_BIN")


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


@pytest.fixture(scope="module")
def gimp(tmp_path_factory: pytest.TempPathFactory) -> Gimp:
    program = ensure_gimp()
    if program is None:
        pytest.skip("optional: no GIMP 2.10 found, and none can be installed here")
    return Gimp(program, tmp_path_factory.mktemp("gimp"))


@pytest.fixture
def save(pack: ModuleType, tmp_path: Path) -> Callable[[str, str, Any], Path]:
    """save(name, form, layers) -> the file."""
    comfyui = f"{pack.__name__}.lib_layerdiffuse.comfyui"

    def write(name: str, form: str, layers: Any) -> Path:
        writer = sys.modules[f"{comfyui}.save_layers"]._writer(form)
        path = tmp_path / f"{name}.{'psd' if form == 'PSD' else 'ora'}"
        with path.open("w+b") as file:
            writer(file, layers, sys.modules[f"{pack.__name__}.lib_layerdiffuse.documents.bytes"].flat_bytes(layers), {})
        return path

    return write


def picture(height: int, width: int, seed: int) -> Tensor:
    return torch.randint(0, 256, (1, height, width, 4), generator=torch.Generator().manual_seed(seed)) / 255


@pytest.mark.parametrize("form", ["PSD", "OpenRaster"])
def test_gimp_makes_the_same_picture(gimp: Gimp, pack: ModuleType, save: Callable[[str, str, Any], Path], form: str) -> None:
    if form == "OpenRaster" and not gimp.knows("file-openraster-load"):
        pytest.skip("optional: this GIMP has no plug-in for OpenRaster (Debian 12 leaves it out with Python 2)")
    package = f"{pack.__name__}.lib_layerdiffuse.pixels"
    composite, blends = sys.modules[f"{package}.composite"], sys.modules[f"{package}.blend"].BLENDS
    stacks, files = {}, {}
    for mode in blends:
        for channels in (3, 4):
            ground = composite.Layer(picture(48, 64, 1)[..., :channels], name="ground")
            over = composite.Layer(picture(40, 40, 2), name=f"{mode} 狐", mode=mode, opacity=0.8, x=-4, y=12)
            key = (mode, channels)
            stacks[key] = composite.Layers(48, 64, (ground, over))
            files[key] = save(f"{mode.replace(' ', '_')}{channels}", form, stacks[key])
    layers = gimp.flatten(list(files.values()))
    for (mode, channels), path in files.items():
        assert layers[path] == [f"{mode} 狐|-4|12|80", "ground|0|0|100"]
        with Image.open(f"{path}.flat.png") as image:
            theirs = torch.from_numpy(np.array(image.convert("RGBA")))[None] / 255
        assert theirs.shape == (1, 48, 64, 4)
        ours = (stacks[mode, channels].flatten() * 255).round() / 255  # GIMP works on 8 bits
        alpha = ours[..., 3:] if channels == 4 else torch.ones_like(ours[..., :1])
        assert (theirs[..., 3:] - alpha).abs().max() < 0.5 / 255
        if mode in SAME:
            assert (theirs[..., :3] * theirs[..., 3:] - ours[..., :3] * alpha).abs().max() <= 1 / 255
