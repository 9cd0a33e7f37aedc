"""For each node, inputs that are right, and the values that they are made of."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import folder_paths
import pytest
import torch
from PIL import Image
from torch import Tensor

from dev.stand_ins.upscaler import Upscaler
from tests.faults.conftest import Run
from tests.unit import photoshop

Inputs = dict[str, Any]
Value = Callable[[], Any]

PATCH: Inputs = {"weight": 1.0, "start": 0.0, "end": 1.0}
FAMILIES = ("SDXL", "SD1.5", "Flux")
SIDE = 64


def picture(height: int = SIDE, width: int = SIDE, batch: int = 1, channels: int = 4) -> Tensor:
    return torch.rand(batch, height, width, channels, generator=torch.Generator().manual_seed(height + width + batch))


def latent(channels: int = 4, batch: int = 1, **more: Any) -> Inputs:
    return {"samples": torch.randn(batch, channels, 8, 8, generator=torch.Generator().manual_seed(batch)), **more}


def text(width: int = 48, tokens: int = 77, batch: int = 1) -> list[Any]:
    return [[torch.randn(batch, tokens, width, generator=torch.Generator().manual_seed(tokens)), {}]]


def broken(value: float, like: Tensor) -> Tensor:
    """One number among many, as a VAE in half precision leaves it."""
    result = like.clone()
    result.view(-1)[result.numel() // 2] = value
    return result


def given(name: str) -> Path:
    """Where a file of the input folder lies, which is there."""
    path = Path(folder_paths.get_input_directory(), name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def given_document() -> str:
    layer = photoshop.Layer({index: picture(6, 9)[0, ..., index].numpy() for index in range(3)}, "fox")
    given("right.psd").write_bytes(photoshop.document([layer], (6, 9)))
    return "right.psd"


def given_picture() -> str:
    Image.fromarray((picture(6, 9)[0] * 255).byte().numpy()).save(given("right.png"))
    return "right.png"


class Doubler(Upscaler):
    """An upscaling model that is cheap on long pictures."""

    scale = 2

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(x, scale_factor=2)


class Right:
    """For each node, inputs that are right: small, and enough to run all of it."""

    def __init__(self, model: Callable[[str], Any], vae: Callable[[str], Any]):
        self.model, self.vae = model, vae
        self.followed: set[tuple[str, str]] = set()

    def inputs(self, node_id: str) -> Inputs:
        given = {"given": "foreground", "fit": "crop", **PATCH}
        decode = {"passes": 1, "tile_size": 0, "family": "auto"}
        old = {"sd_version": "SDXL", "sub_batch_size": 16}
        conditioned = {"cond": text(), "uncond": text(), "weight": 1.0}
        sets = latent(batch=3, layers=("foreground", "background", "blended"))
        table: dict[str, Callable[[], Inputs]] = {
            "DiaphaneTransparent": lambda: {"model": self.model("SDXL"), "method": "auto", **PATCH},
            "DiaphaneJoint": lambda: {"model": self.model("SD1.5"), **PATCH},
            "DiaphaneJointFromLayer": lambda: {"model": self.model("SD1.5"), "image": picture(), **given},
            "DiaphaneBlend": lambda: {"model": self.model("SDXL"), "vae": self.vae("SDXL"), "image": picture(), **given},
            "DiaphaneExtract": lambda: {
                "model": self.model("SDXL"),
                "vae": self.vae("SDXL"),
                "blended": picture(channels=3),
                "layer": picture(),
                "extract": "background",
                "fit": "crop",
                **PATCH,
            },
            "DiaphaneShape": lambda: {
                "model": self.model("SDXL"),
                "vae": self.vae("SDXL"),
                "area": torch.ones(1, SIDE, SIDE),
                "precision": 1.0,
                "fit": "crop",
                "strength": 2.0,
                "corrections": 4,
                "end": 0.4,
            },
            "DiaphaneLayerPrompts": lambda: {"base": text(), "layers": "foreground, background, blended", "foreground": text(tokens=154)},
            "DiaphaneEmptyLayers": lambda: {"width": 64, "height": 64, "layers": "foreground", "sets": 1},
            "DiaphaneEmptyTransparent": lambda: {"vae": self.vae("SDXL"), "width": 64, "height": 72, "batch_size": 2, "family": "auto"},
            "DiaphaneVAEDecode": lambda: {"samples": latent(), "vae": self.vae("SDXL"), **decode},
            "DiaphaneVAEEncode": lambda: {"image": picture(), "vae": self.vae("SDXL"), "family": "auto", "offset_scale": 300.0},
            "DiaphaneVAE": lambda: {"vae": self.vae("SDXL"), "family": "auto", "passes": 1, "offset_scale": 300.0},
            "DiaphaneSplitLayers": lambda: {"samples": sets, "vae": self.vae("SD1.5"), "layers": "auto", "passes": 1},
            "DiaphaneBleed": lambda: {"image": picture()},
            "DiaphanePreview": lambda: {"image": picture(), "backdrop": "checkerboard", "cell": 32},
            "DiaphanePlaceLayer": lambda: {
                "image": picture(),
                "name": "fox",
                "mode": "normal",
                "opacity": 1.0,
                "x": 0,
                "y": 0,
                "scale": 0.5,
                "rotation": 2.0,
                "moves": "picture",
                "flip": "both",
                "canvas": picture(),
            },
            "DiaphaneComposite": lambda: {"layers": {"layer0": picture(16, 16)}, "background": picture(channels=3)},
            "DiaphaneToCore": lambda: {"layers": {"layer0": picture(16, 16, batch=2)}, "picture": 2},
            "DiaphaneFromCore": lambda: {"layers": {"layers": [{"image": picture(16, 16, batch=2), "rotation": 0.5}]}},
            "DiaphaneUpscale": lambda: {"upscale_model": Doubler(), "image": picture()},
            "DiaphaneRepair": lambda: {
                "image": picture(),
                "defringe": 2,
                "black": 0.1,
                "white": 0.9,
                "gamma": 1.0,
                "trim": True,
                "margin": 0,
                "area": torch.ones(1, SIDE // 2, SIDE),
            },
            "DiaphaneLoadTransparent": lambda: {"image": given_picture(), "folder": "none", "folder_as": "list"},
            "DiaphaneLoadLayers": lambda: {"file": given_document(), "groups": "take apart", "pick": "fox"},
            "DiaphaneSaveLayers": lambda: {
                "layers": {"layer0": picture(16, 16)},
                "filename_prefix": "faults/right",
                "format": "OpenRaster",
                "names": "",
            },
            "DiaphaneSaveSheet": lambda: {
                "images": picture(batch=3),
                "filename_prefix": "faults/sheet",
                "layout": "packed",
                "columns": 0,
                "padding": 2,
                "trim": True,
                "power_of_two": False,
                "bleed": True,
                "names": "",
            },
            "DiaphaneSaveAnimation": lambda: {
                "images": picture(batch=3),
                "filename_prefix": "faults/animation",
                "format": "WebP",
                "fps": 12.0,
                "loop": 0,
                "quality": 80,
            },
            "DiaphaneDropShadow": lambda: {
                "layer": picture(),
                "x": 6,
                "y": 6,
                "blur": 12.0,
                "spread": 0.5,
                "colour": "#102030",
                "opacity": 0.5,
            },
            "DiaphaneShadow": lambda: {
                "background": picture(channels=3),
                "layer": picture(),
                "blended": picture(40, 48, channels=3),
                "smooth": 3.0,
                "threshold": 0.03,
            },
            "LayeredDiffusionApply": lambda: {"model": self.model("SDXL"), "config": "SDXL, Attention Injection", "weight": 1.0},
            "LayeredDiffusionJointApply": lambda: {"model": self.model("SD1.5"), "config": "SD15, attn_sharing, Batch size (3N)"},
            "LayeredDiffusionCondApply": lambda: {
                "model": self.model("SDXL"),
                "latent": latent(),
                "config": "SDXL, Foreground",
                **conditioned,
            },
            "LayeredDiffusionCondJointApply": lambda: {
                "model": self.model("SD1.5"),
                "image": picture(),
                "config": "SD15, Foreground, attn_sharing, Batch size (2N)",
            },
            "LayeredDiffusionDiffApply": lambda: {
                "model": self.model("SDXL"),
                "latent": latent(),
                "blended_latent": latent(),
                "config": "SDXL, Foreground",
                **conditioned,
            },
            "LayeredDiffusionDecode": lambda: {"samples": latent(), "images": picture(channels=3), **old},
            "LayeredDiffusionDecodeRGBA": lambda: {"samples": latent(), "images": picture(channels=3), **old},
            "LayeredDiffusionDecodeSplit": lambda: {"samples": latent(batch=2), "images": picture(batch=2, channels=3), "frames": 2, **old},
        }
        return table[node_id]()

    def after(self, run: Run, node_id: str, name: str) -> None:
        """The next right run: once for each input that was wrong, and all of them in the end."""
        if (node_id, name) not in self.followed:
            self.followed.add((node_id, name))
            run(node_id, **self.inputs(node_id))


@pytest.fixture(scope="session")
def right(model: Callable[[str], Any], vae: Callable[[str], Any]) -> Right:
    return Right(model, vae)


@pytest.fixture(scope="module", autouse=True)
def models_stay_as_they_are(model: Callable[[str], Any]) -> Iterator[None]:
    """Patch nodes work on clones: whatever failed in a file, the base models carry nothing after it."""
    yield
    importlib.import_module("comfy.model_management").unload_all_models()
    for family in FAMILIES:
        base = model(family)
        assert not base.patches and not base.additional_models and not base.injections and not base.wrappers, family
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in base.model.modules()), family
