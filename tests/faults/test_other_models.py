"""Models, VAEs and upscalers of another kind than a node works with: it says so, and the next right run succeeds."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import comfy.supported_models as supported
import pytest
import torch

from tests.faults.conftest import Run
from tests.faults.reports import told
from tests.faults.right import FAMILIES, Doubler, Inputs, Right, models_stay_as_they_are, picture, right
from tests.faults.test_inputs import SOCKETS

__all__ = ["models_stay_as_they_are", "right"]

NEEDS = {
    "DiaphaneTransparent": {"SDXL", "SD1.5", "Flux"},
    "DiaphaneShape": {"SDXL", "SD1.5", "Flux"},
    "DiaphaneJoint": {"SD1.5"},
    "DiaphaneJointFromLayer": {"SD1.5"},
    "DiaphaneBlend": {"SDXL"},
    "DiaphaneExtract": {"SDXL"},
    "LayeredDiffusionApply": {"SDXL"},  # as its config says
    "LayeredDiffusionJointApply": {"SD1.5"},
    "LayeredDiffusionCondApply": {"SDXL"},
    "LayeredDiffusionCondJointApply": {"SD1.5"},
    "LayeredDiffusionDiffApply": {"SDXL"},
}
KNOWN = (supported.SD15, supported.SDXL, supported.Flux)
# Subclasses of a known family in the host that are, or may be, another model in the world: told apart by their weights.
STRANGERS = [found for found in supported.models if not issubclass(found, KNOWN) or issubclass(found, supported.Flux2)]


@pytest.mark.parametrize(("node_id", "family"), [(node_id, f) for node_id, needed in NEEDS.items() for f in FAMILIES if f not in needed])
def test_models_of_another_family(run: Run, right: Right, model: Callable[[str], Any], node_id: str, family: str) -> None:
    [needed] = NEEDS[node_id] - {"Flux"}
    told(lambda: run(node_id, **{**right.inputs(node_id), "model": model(family)}), [f"needs an {needed} model, got {family}"])
    right.after(run, node_id, "model")


def test_extracting_has_no_other_node_for_sd15(run: Run, right: Right, model: Callable[[str], Any]) -> None:
    words = ["No such weights exist for SD1.5", "LayerDiffuse Joint,", "LayerDiffuse Joint From Layer"]
    told(lambda: run("DiaphaneExtract", **{**right.inputs("DiaphaneExtract"), "model": model("SD1.5")}), words)


@pytest.mark.parametrize(("name", "unet"), [("QwenImage21", {}), ("QwenImage", {"use_additional_t_cond": True})])
def test_a_model_that_makes_alpha_by_itself(run: Run, right: Right, name: str, unet: dict[str, Any]) -> None:
    """The first is of newer hosts than can be built here, which call it by this name; the second is Qwen-Image-Layered."""
    config = type(name, (supported.models[0].__mro__[1],), {})(unet)
    model = type("Patcher", (), {"model": type("Model", (), {"model_config": config})})()
    for node_id in NEEDS:
        told(lambda node_id=node_id: run(node_id, **{**right.inputs(node_id), "model": model}), [name, "by itself", "VAE Decode"])


@pytest.mark.parametrize("stranger", STRANGERS, ids=lambda found: found.__name__)
def test_models_of_no_known_family(run: Run, right: Right, stranger: type) -> None:
    config = object.__new__(stranger)
    strange = type("Patcher", (), {"model": type("Model", (), {"model_config": config})})()
    for node_id, needed in NEEDS.items():
        words = [f"needs an {' or '.join(f for f in ('SD1.5', 'SDXL', 'Flux') if f in needed)} model", f"got {stranger.__name__}. Load"]
        told(lambda node_id=node_id: run(node_id, **{**right.inputs(node_id), "model": strange}), words)


def vae_with(vae: Any, **attributes: Any) -> Any:
    other = copy.copy(vae)
    other.__dict__.update(attributes)
    return other


VAES: dict[str, tuple[Inputs, list[str]]] = {
    "of a video model": ({"latent_dim": 3}, ["3 dimensions", "Connect the VAE"]),
    "of SD1.5's size with 8 channels": ({"latent_channels": 8}, ["8 latent channels", "Connect the VAE"]),
    "of Qwen-Image-2.1": (
        {"output_channels": 4, "latent_channels": 64, "downscale_ratio": 16},
        ["alpha by themselves", "Use VAE Decode and VAE Encode", "without a LayerDiffuse patch"],
    ),
    "of Qwen-Image-Layered": ({"output_channels": 4, "latent_channels": 16, "latent_dim": 3}, ["alpha by themselves"]),
    "with alpha and SDXL's latents": ({"output_channels": 4}, ["alpha by themselves"]),
    "that takes RGB and gives alpha": ({"conv_out_channels": 4}, ["alpha by themselves"]),
    "of one sixteenth": ({"downscale_ratio": 16}, ["scale of 16", "Connect the VAE"]),
}
TAKES_VAE = [node_id for node_id, sockets in SOCKETS.items() if "vae" in sockets]


@pytest.mark.parametrize("node_id", TAKES_VAE)
@pytest.mark.parametrize("kind", VAES)
def test_vaes_of_another_kind(run: Run, right: Right, node_id: str, kind: str) -> None:
    attributes, words = VAES[kind]
    inputs = right.inputs(node_id)
    told(lambda: run(node_id, **{**inputs, "vae": vae_with(inputs["vae"], **attributes)}), words)
    right.after(run, node_id, "vae")


FLUX_VAE = {
    "DiaphaneBlend": ["16 latent channels", "works with 4"],
    "DiaphaneExtract": ["16 latent channels", "works with 4"],
    "DiaphaneShape": ["16 latent channels", "works with 4"],
    "DiaphaneVAEDecode": ["latent has 4 channels", "decodes 16"],
    "DiaphaneSplitLayers": ["Flux kind", "SD1.5"],
}


@pytest.mark.parametrize("node_id", FLUX_VAE)
def test_the_vae_of_another_family(run: Run, right: Right, vae: Callable[[str], Any], node_id: str) -> None:
    told(lambda: run(node_id, **{**right.inputs(node_id), "vae": vae("Flux")}), FLUX_VAE[node_id])
    right.after(run, node_id, "vae")


def test_a_preview_vae_cannot_encode(run: Run, right: Right) -> None:
    inputs = right.inputs("DiaphaneVAEEncode")
    preview = vae_with(inputs["vae"], first_stage_model=torch.nn.Identity())
    told(lambda: run("DiaphaneVAEEncode", **{**inputs, "vae": preview}), ["full VAE", "Identity", "checkpoint's own VAE"])
    run("DiaphaneVAEEncode", **inputs)


def test_a_picture_too_small_for_a_drop_in_vae(run: Run, right: Right) -> None:
    [transparent] = run("DiaphaneVAE", **right.inputs("DiaphaneVAE"))
    told(lambda: transparent.encode(picture(7, 64)), ["8", "64x7"])
    assert transparent.encode(picture(8, 71)).shape == (1, 4, 1, 8)


@pytest.mark.parametrize("channels", [1, 4])
def test_upscalers_for_other_pictures(run: Run, right: Right, channels: int) -> None:
    other = Doubler()
    other.input_channels = channels
    inputs = right.inputs("DiaphaneUpscale")
    told(lambda: run("DiaphaneUpscale", **{**inputs, "upscale_model": other}), [f"{channels} channel", "3", "Load"])
    run("DiaphaneUpscale", **inputs)
