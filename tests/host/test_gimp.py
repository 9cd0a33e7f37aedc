"""GIMP opens our layered files and makes the same picture of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dev.gimp import Gimp, ensure_gimp

pytestmark = pytest.mark.full

# GIMP has formulae of its own for soft light and the four of hue, saturation, colour and luminosity, and blends add, dodge and burn in
# linear light: there psd-tools is the judge (tests/unit/test_compositing.py).
SAME = ("normal", "multiply", "screen", "overlay", "hard light", "darken", "lighten", "difference", "exclusion")


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
