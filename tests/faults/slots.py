"""The jobs that weight files do: the node and setting that take each, and what is right for them."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import folder_paths
import pytest
import torch

from dev.stand_ins.seeded import seeded_noise
from lib_layerdiffuse.weights.catalogue import CATALOGUE
from tests.faults.conftest import Run

NAMES = [file.name for file in CATALOGUE]
WHOLE = {"weight": 1.0, "start": 0.0, "end": 1.0}


class Slot:
    """A job that a file does: the node and setting that take it, and all released files that fit."""

    def __init__(self, node_id: str, setting: str, owner: str, fitting: list[str], **inputs: Any):
        self.node_id, self.setting, self.owner, self.inputs = node_id, setting, owner, inputs
        self.fitting = [name if "." in name else f"{name}.safetensors" for name in fitting]

    def run(self, run: Run, model: Callable[[str], Any], vae: Callable[[str], Any], file: str) -> tuple[Any, ...]:
        owner = {"model": model(self.owner)} if self.setting == "file" else {}
        if self.setting != "file" or "blended" in self.inputs or self.node_id == "DiaphaneBlend":
            owner["vae"] = vae(self.owner)
        return run(self.node_id, **{**owner, **self.inputs, self.setting: file})


PICTURE = torch.sigmoid(seeded_noise("picture", (1, 64, 64, 4)))
DECODE = {"passes": 1, "tile_size": 0, "family": "auto"}
SHARED = ["layer_sd15_fg2bg", "layer_sd15_bg2fg"]  # of one structure: only a person can tell them apart
AROUND = ["layer_xl_fg2ble", "layer_xl_bg2ble"]
DECODERS = ["vae_transparent_decoder", "layer_sd15_vae_transparent_decoder"]
ENCODERS = ["vae_transparent_encoder", "layer_sd15_vae_transparent_encoder"]
SLOTS = {
    "transparent SDXL": Slot(
        "DiaphaneTransparent", "file", "SDXL", ["layer_xl_transparent_attn", "layer_xl_transparent_conv"], method="auto", **WHOLE
    ),
    "transparent SD1.5": Slot("DiaphaneTransparent", "file", "SD1.5", ["layer_sd15_transparent_attn"], method="auto", **WHOLE),
    "transparent Flux": Slot("DiaphaneTransparent", "file", "Flux", ["layerlora"], method="auto", **WHOLE),
    "joint": Slot("DiaphaneJoint", "file", "SD1.5", ["layer_sd15_joint"], **WHOLE),
    "joint from layer": Slot("DiaphaneJointFromLayer", "file", "SD1.5", SHARED, image=PICTURE, given="foreground", fit="crop", **WHOLE),
    "blend": Slot("DiaphaneBlend", "file", "SDXL", AROUND, image=PICTURE, given="foreground", fit="crop", **WHOLE),
    "extract": Slot(
        "DiaphaneExtract",
        "file",
        "SDXL",
        ["layer_xl_fgble2bg", "layer_xl_bgble2fg"],
        blended=PICTURE,
        layer=PICTURE,
        extract="background",
        fit="crop",
        **WHOLE,
    ),
    "decode": Slot("DiaphaneVAEDecode", "decoder_file", "SDXL", DECODERS, samples={"samples": torch.zeros(1, 4, 8, 8)}, **DECODE),
    "decode Flux": Slot(
        "DiaphaneVAEDecode", "decoder_file", "Flux", ["TransparentVAE.pth"], samples={"samples": torch.zeros(1, 16, 8, 8)}, **DECODE
    ),
    "encode": Slot("DiaphaneVAEEncode", "encoder_file", "SDXL", ENCODERS, image=PICTURE, family="auto", offset_scale=300.0),
    "encode Flux": Slot(
        "DiaphaneVAEEncode", "encoder_file", "Flux", ["TransparentVAE.pth"], image=PICTURE, family="auto", offset_scale=300.0
    ),
}


@pytest.fixture
def at(run: Run, model: Callable[[str], Any], vae: Callable[[str], Any]) -> Callable[[str, str], tuple[Any, ...]]:
    """at(slot, file): the node of a slot with a file chosen by hand."""
    return lambda slot, file: SLOTS[slot].run(run, model, vae, file)


JOB = {name: next(slot for slot, known in SLOTS.items() if name in known.fitting) for name in NAMES}


@pytest.fixture
def spoilt(tmp_path: Path, layer_models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A second model folder, looked into first, for files that are not as they should be."""
    folder_paths.folder_names_and_paths["layer_model"][0].insert(0, str(tmp_path))
    return tmp_path
