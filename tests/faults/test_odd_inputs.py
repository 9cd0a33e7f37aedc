"""Inputs that are odd but right give a result; batches that do not go together say so."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.faults.conftest import Run
from tests.faults.reports import told
from tests.faults.right import SIDE, Inputs, Right, Value, latent, models_stay_as_they_are, picture, right, text
from tests.faults.test_inputs import SOCKETS

__all__ = ["models_stay_as_they_are", "right"]


# --- sizes, channels and precisions that are odd but right -----------------------------------------------------------------------------

ODD: dict[str, Value] = {
    "1x1": lambda: picture(1, 1),
    "1x1 RGB": lambda: picture(1, 1, channels=3),
    "7x3": lambda: picture(7, 3),
    "8192x64": lambda: picture(64, 8192),
    "64x8192": lambda: picture(8192, 64),
    "64x1032": lambda: picture(1032, 64),
    "grey": lambda: picture(channels=1),
    "half precision": lambda: picture().half(),
    "bfloat16": lambda: picture().bfloat16(),
    "double precision": lambda: picture().double(),
    "beyond 0 to 1": lambda: picture() * 3.0 - 1.0,
    "a view": lambda: picture(SIDE * 2, SIDE * 2).transpose(1, 2)[:, ::2, ::2],
    "transparent": lambda: torch.zeros(1, SIDE, SIDE, 4),
}
TAKES_PICTURES = [(n, name) for n, sockets in SOCKETS.items() for name, kind in sockets.items() if kind == "IMAGE" and name != "images"]


@pytest.mark.parametrize(("node_id", "name"), TAKES_PICTURES)
@pytest.mark.parametrize("odd", ODD)
def test_odd_pictures_are_fine(run: Run, right: Right, node_id: str, name: str, odd: str) -> None:
    if odd == "64x8192" and "vae" in SOCKETS[node_id]:
        odd = "64x1032"  # these take their time, and no side is special to them
    outputs = run(node_id, **{**right.inputs(node_id), name: ODD[odd]()})
    assert outputs
    for output in outputs:
        pixels = output["samples"] if isinstance(output, dict) else output
        assert not isinstance(pixels, Tensor) or pixels.isfinite().all()


@pytest.mark.parametrize("form", ["PSD", "OpenRaster", "PNG"])
@pytest.mark.parametrize("odd", ODD)
def test_odd_pictures_are_saved(run: Run, right: Right, form: str, odd: str) -> None:
    layers = {"layer0": ODD[odd](), "layer1": picture(9, 5)}
    run("DiaphaneSaveLayers", **{**right.inputs("DiaphaneSaveLayers"), "layers": layers, "format": form})


@pytest.mark.parametrize("size", [(1, 1), (1, 1024), (1024, 8), (3, 5)])
def test_odd_latents_are_decoded(run: Run, right: Right, size: tuple[int, int]) -> None:
    samples = {"samples": torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(1))}
    rgba, rgb, mask = run("DiaphaneVAEDecode", **{**right.inputs("DiaphaneVAEDecode"), "samples": samples})
    height, width = (side * 8 for side in size)
    assert (rgba.shape, rgb.shape, mask.shape) == ((1, height, width, 4), (1, height, width, 3), (1, height, width))
    assert rgba.isfinite().all()


def test_layers_of_another_pack_are_not_taken_for_ours(run: Run, right: Right) -> None:
    inputs = right.inputs("DiaphaneVAEDecode")
    [expected, *_] = run("DiaphaneVAEDecode", **inputs)
    for layers in (7, "sky", ["sky", "sea"], [{"name": "foreground"}], {"foreground": 1}):
        [rgba, *_] = run("DiaphaneVAEDecode", **{**inputs, "samples": latent(layers=layers)})
        assert torch.equal(rgba, expected), layers


# --- batches ---------------------------------------------------------------------------------------------------------------------------

BATCHES: dict[str, tuple[str, Inputs, list[str]]] = {
    "two given layers": ("DiaphaneJointFromLayer", {"image": picture(batch=2)}, ["one picture, got 2"]),
    "two given layers, old": ("LayeredDiffusionCondJointApply", {"image": picture(batch=2)}, ["one picture, got 2"]),
    "two blended, three layers": ("DiaphaneExtract", {"blended": picture(batch=2), "layer": picture(batch=3)}, ["3 and 2 pictures"]),
    "two images, one latent": ("DiaphaneVAEDecode", {"images": picture(batch=2)}, ["2 images and 1 latents"]),
    "two images, one latent, old": ("LayeredDiffusionDecode", {"images": picture(batch=2)}, ["2 images and 1 latents"]),
    "two layers, three pictures": (
        "DiaphaneComposite",
        {"layers": {"layer0": picture(batch=2), "layer1": picture(batch=3)}},
        ["batches of 1 and 2 and 3"],
    ),
    "two backgrounds, three blended": (
        "DiaphaneShadow",
        {"background": picture(batch=2), "blended": picture(batch=3)},
        ["batches of 1 and 2 and 3"],
    ),
    "two pictures, three areas": ("DiaphaneRepair", {"image": picture(batch=2), "area": torch.ones(3, SIDE, SIDE)}, ["2 pictures and 3"]),
    "four rows of three layers": (
        "DiaphaneSplitLayers",
        {"samples": latent(batch=4, layers=("foreground", "background", "blended"))},
        ["batch of 4", "sets of 3"],
    ),
    "rows without names": ("DiaphaneSplitLayers", {"samples": latent(batch=3)}, ["which layers", "Empty Layer Latent"]),
    "prompts of two models": ("DiaphaneLayerPrompts", {"foreground": text(width=64)}, ["48", "64", "text encoder"]),
    "a prompt without tokens": ("DiaphaneLayerPrompts", {"foreground": text(tokens=0)}, ["foreground", "empty"]),
}


@pytest.mark.parametrize("name", BATCHES)
def test_batches_that_do_not_go_together(run: Run, right: Right, name: str) -> None:
    node_id, changes, words = BATCHES[name]
    told(lambda: run(node_id, **{**right.inputs(node_id), **changes}), words)
    right.after(run, node_id, name)
