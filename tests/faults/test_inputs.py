"""Every node with everything wrong that can be wired into it: it says so, and the next right run succeeds."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import comfy.supported_models as supported
import pytest
import torch
from comfy.nested_tensor import NestedTensor
from comfy_api.latest import io
from torch import Tensor

from dev.stand_ins.upscaler import Upscaler
from tests.faults.conftest import Run
from tests.faults.reports import told

Inputs = dict[str, Any]
Value = Callable[[], Any]

PATCH: Inputs = {"weight": 1.0, "start": 0.0, "end": 1.0}
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
            "DiaphaneLayerPrompts": lambda: {"base": text(), "layers": "foreground, background, blended", "foreground": text(tokens=154)},
            "DiaphaneEmptyLayers": lambda: {"width": 64, "height": 64, "layers": "foreground", "sets": 1},
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
            },
            "DiaphaneComposite": lambda: {"layers": {"layer0": picture(16, 16)}, "background": picture(channels=3)},
            "DiaphaneUpscale": lambda: {"upscale_model": Doubler(), "image": picture()},
            "DiaphaneRepair": lambda: {
                "image": picture(),
                "defringe": 2,
                "black": 0.1,
                "white": 0.9,
                "gamma": 1.0,
                "trim": True,
                "margin": 0,
            },
            "DiaphaneSaveLayers": lambda: {
                "layers": {"layer0": picture(16, 16)},
                "filename_prefix": "faults/right",
                "format": "OpenRaster",
                "names": "",
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
        """The next right run. Patching a model takes a while: once for each input that was wrong, and all of them in the end."""
        if "model" not in SOCKETS[node_id] or (node_id, name) not in self.followed:
            self.followed.add((node_id, name))
            run(node_id, **self.inputs(node_id))


@pytest.fixture(scope="session")
def right(model: Callable[[str], Any], vae: Callable[[str], Any]) -> Right:
    return Right(model, vae)


# The sockets of each node, by what flows through them. Compared with the nodes themselves below.
SOCKETS: dict[str, dict[str, str]] = {
    "DiaphaneTransparent": {"model": "MODEL"},
    "DiaphaneJoint": {"model": "MODEL"},
    "DiaphaneJointFromLayer": {"model": "MODEL", "image": "IMAGE", "mask": "MASK"},
    "DiaphaneBlend": {"model": "MODEL", "vae": "VAE", "image": "IMAGE", "mask": "MASK"},
    "DiaphaneExtract": {"model": "MODEL", "vae": "VAE", "blended": "IMAGE", "layer": "IMAGE", "layer_mask": "MASK"},
    "DiaphaneLayerPrompts": {name: "CONDITIONING" for name in ("base", "foreground", "background", "blended")},
    "DiaphaneEmptyLayers": {},
    "DiaphaneVAEDecode": {"samples": "LATENT", "vae": "VAE", "images": "IMAGE"},
    "DiaphaneVAEEncode": {"image": "IMAGE", "vae": "VAE", "mask": "MASK"},
    "DiaphaneVAE": {"vae": "VAE"},
    "DiaphaneSplitLayers": {"samples": "LATENT", "vae": "VAE", "images": "IMAGE"},
    "DiaphaneBleed": {"image": "IMAGE", "mask": "MASK"},
    "DiaphanePreview": {"image": "IMAGE", "mask": "MASK"},
    "DiaphanePlaceLayer": {"image": "IMAGE", "mask": "MASK"},
    "DiaphaneComposite": {"layers": "LAYERS", "background": "LAYERS", "area": "MASK"},
    "DiaphaneUpscale": {"upscale_model": "UPSCALE_MODEL", "image": "IMAGE", "mask": "MASK"},
    "DiaphaneRepair": {"image": "IMAGE", "mask": "MASK"},
    "DiaphaneSaveLayers": {"layers": "LAYERS"},
    "LayeredDiffusionApply": {"model": "MODEL"},
    "LayeredDiffusionJointApply": {
        "model": "MODEL",
        "fg_cond": "CONDITIONING",
        "bg_cond": "CONDITIONING",
        "blended_cond": "CONDITIONING",
    },
    "LayeredDiffusionCondApply": {"model": "MODEL", "cond": "CONDITIONING", "uncond": "CONDITIONING", "latent": "LATENT"},
    "LayeredDiffusionCondJointApply": {"model": "MODEL", "image": "IMAGE", "cond": "CONDITIONING", "blended_cond": "CONDITIONING"},
    "LayeredDiffusionDiffApply": {
        "model": "MODEL",
        "cond": "CONDITIONING",
        "uncond": "CONDITIONING",
        "blended_latent": "LATENT",
        "latent": "LATENT",
    },
    "LayeredDiffusionDecode": {"samples": "LATENT", "images": "IMAGE"},
    "LayeredDiffusionDecodeRGBA": {"samples": "LATENT", "images": "IMAGE"},
    "LayeredDiffusionDecodeSplit": {"samples": "LATENT", "images": "IMAGE"},
}
# The settings of each node that are numbers: least and greatest.
NUMBERS: dict[str, dict[str, tuple[float, float]]] = {
    **{name: {"weight": (-1, 3), "start": (0, 1), "end": (0, 1)} for name in ("DiaphaneTransparent", "DiaphaneJoint")},
    **{name: {"weight": (-1, 3), "start": (0, 1), "end": (0, 1)} for name in ("DiaphaneJointFromLayer", "DiaphaneBlend")},
    "DiaphaneExtract": {"weight": (-1, 3), "start": (0, 1), "end": (0, 1)},
    "DiaphaneEmptyLayers": {"width": (64, 8192), "height": (64, 8192), "sets": (1, 64)},
    "DiaphaneVAEDecode": {"tile_size": (0, 8192)},
    "DiaphaneVAEEncode": {"offset_scale": (0, 1000)},
    "DiaphaneVAE": {"offset_scale": (0, 1000)},
    "DiaphanePreview": {"cell": (4, 512)},
    "DiaphanePlaceLayer": {
        "opacity": (0, 1),
        "x": (-16384, 16384),
        "y": (-16384, 16384),
        "scale": (0.01, 16),
        "rotation": (-360, 360),
    },
    "DiaphaneRepair": {"defringe": (0, 64), "black": (0, 1), "white": (0, 1), "gamma": (0.1, 10), "margin": (0, 1024)},
    **{name: {"weight": (-1, 3)} for name in ("LayeredDiffusionApply", "LayeredDiffusionCondApply", "LayeredDiffusionDiffApply")},
    **{name: {"sub_batch_size": (1, 4096)} for name in ("LayeredDiffusionDecode", "LayeredDiffusionDecodeRGBA")},
    "LayeredDiffusionDecodeSplit": {"frames": (2, 3), "sub_batch_size": (1, 4096)},
}
CHOICES: dict[str, list[str]] = {
    "DiaphaneTransparent": ["method"],
    "DiaphaneJointFromLayer": ["given", "fit"],
    "DiaphaneBlend": ["given", "fit"],
    "DiaphaneExtract": ["extract", "fit"],
    "DiaphaneLayerPrompts": ["layers"],
    "DiaphaneEmptyLayers": ["layers"],
    "DiaphaneVAEDecode": ["family", "passes"],
    "DiaphaneVAEEncode": ["family"],
    "DiaphaneVAE": ["family", "passes"],
    "DiaphaneSplitLayers": ["layers", "passes"],
    "DiaphanePreview": ["backdrop"],
    "DiaphanePlaceLayer": ["mode"],
    "DiaphaneSaveLayers": ["format"],
    **{f"LayeredDiffusion{name}": ["config"] for name in ("Apply", "JointApply", "CondApply", "CondJointApply", "DiffApply")},
    **{f"LayeredDiffusion{name}": ["sd_version"] for name in ("Decode", "DecodeRGBA", "DecodeSplit")},
}
FILES: dict[str, list[str]] = {
    **{f"Diaphane{name}": ["file"] for name in ("Transparent", "Joint", "JointFromLayer", "Blend", "Extract")},
    "DiaphaneVAEDecode": ["decoder_file"],
    "DiaphaneVAEEncode": ["encoder_file"],
    "DiaphaneVAE": ["decoder_file", "encoder_file"],
    "DiaphaneSplitLayers": ["decoder_file"],
}

SHAPE = "[batch, height, width, 3 or 4 channels]"
NOT_NUMBERS = "NaN or infinite"
PICTURES: dict[str, tuple[Value, list[str]]] = {
    "text": (lambda: "a picture", ["IMAGE", "got a str"]),
    "three dimensions": (lambda: torch.zeros(SIDE, SIDE, 3), [SHAPE, "[64, 64, 3]"]),
    "five dimensions": (lambda: torch.zeros(1, 1, SIDE, SIDE, 3), [SHAPE, "[1, 1, 64, 64, 3]"]),
    "two channels": (lambda: torch.zeros(1, SIDE, SIDE, 2), [SHAPE, "[1, 64, 64, 2]"]),
    "five channels": (lambda: torch.zeros(1, SIDE, SIDE, 5), [SHAPE, "[1, 64, 64, 5]"]),
    "channels first": (lambda: torch.zeros(1, 3, SIDE, SIDE), [SHAPE, "[1, 3, 64, 64]"]),
    "no picture in it": (lambda: torch.zeros(0, SIDE, SIDE, 4), ["empty picture", "[0, 64, 64, 4]"]),
    "no height": (lambda: torch.zeros(1, 0, SIDE, 4), ["empty picture", "[1, 0, 64, 4]"]),
    "no width": (lambda: torch.zeros(1, SIDE, 0, 3), ["empty picture", "[1, 64, 0, 3]"]),
    "bytes": (lambda: torch.zeros(1, SIDE, SIDE, 3, dtype=torch.uint8), ["0 to 1", "torch.uint8"]),
    "whole numbers": (lambda: torch.zeros(1, SIDE, SIDE, 4, dtype=torch.int64), ["0 to 1", "torch.int64"]),
    "NaN": (lambda: broken(math.nan, picture()), [NOT_NUMBERS, "--fp32-vae"]),
    "NaN in half precision": (lambda: broken(math.nan, picture().half()), [NOT_NUMBERS, "--fp32-vae"]),
    "infinity": (lambda: broken(math.inf, picture(channels=3)), [NOT_NUMBERS, "--fp32-vae"]),
}
MASKS: dict[str, tuple[Value, list[str]]] = {
    "text": (lambda: "a mask", ["MASK", "got a str"]),
    "one dimension": (lambda: torch.zeros(SIDE), ["[batch, height, width]", "[64]"]),
    "a picture": (lambda: torch.zeros(1, SIDE, SIDE, 3), ["[batch, height, width]", "[1, 64, 64, 3]"]),
    "no mask in it": (lambda: torch.zeros(0, SIDE, SIDE), ["empty mask", "[0, 64, 64]"]),
    "no width": (lambda: torch.zeros(1, SIDE, 0), ["empty mask", "[1, 64, 0]"]),
    "bytes": (lambda: torch.zeros(1, SIDE, SIDE, dtype=torch.uint8), ["0 to 1", "torch.uint8"]),
    "NaN": (lambda: broken(math.nan, torch.zeros(1, SIDE, SIDE)), [NOT_NUMBERS]),
    "another batch": (lambda: torch.zeros(3, SIDE, SIDE), ["3"]),
}
LATENTS: dict[str, tuple[Value, list[str]]] = {
    "text": (lambda: "a latent", ["LATENT", "got a str"]),
    "no samples": (lambda: {}, ["LATENT", "samples"]),
    "samples that are no tensor": (lambda: {"samples": [1.0]}, ["LATENT", "samples"]),
    "three channels": (lambda: latent(3), ["3", "4"]),
    "16 channels": (lambda: latent(16), ["16", "4"]),
    "a video": (lambda: {"samples": torch.zeros(1, 4, 2, 8, 8)}, ["[B, "]),
    "three dimensions": (lambda: {"samples": torch.zeros(4, 8, 8)}, ["[B, "]),
    "picture and sound": (lambda: {"samples": NestedTensor((torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8)))}, ["[B, "]),
    "none in it": (lambda: {"samples": torch.zeros(0, 4, 8, 8)}, ["empty latent", "[0, 4, 8, 8]"]),
    "no height": (lambda: {"samples": torch.zeros(1, 4, 0, 8)}, ["empty latent", "[1, 4, 0, 8]"]),
    "NaN": (lambda: {"samples": broken(math.nan, latent()["samples"])}, [NOT_NUMBERS, "sampl"]),
}
TEXTS: dict[str, tuple[Value, list[str]]] = {
    "text": (lambda: "a fox", ["CONDITIONING", "got a str"]),
    "no prompt in it": (lambda: [], ["CONDITIONING", "empty"]),
}
OTHERS = {"MODEL", "VAE", "UPSCALE_MODEL"}
BY_KIND = {"IMAGE": PICTURES, "MASK": MASKS, "LATENT": LATENTS, "CONDITIONING": TEXTS}

WIRED = [
    pytest.param(node_id, name, make, words, id=f"{node_id}-{name}-{fault}")
    for node_id, sockets in SOCKETS.items()
    for name, kind in sockets.items()
    for fault, (make, words) in BY_KIND.get(kind, {}).items()
]


def settings_of(schema: Any, *kinds: type) -> dict[str, Any]:
    return {item.id: item for item in schema.inputs if isinstance(item, kinds)}


def test_the_tables_hold_every_input_of_every_node(node_classes: dict[str, Any], right: Right) -> None:
    schemas = {node_id: node.define_schema() for node_id, node in node_classes.items()}
    assert SOCKETS.keys() == {node_id for node_id, schema in schemas.items() if schema.inputs}
    for node_id in SOCKETS:
        schema = schemas[node_id]
        numbers = settings_of(schema, io.Int.Input, io.Float.Input)
        assert {name: (item.min, item.max) for name, item in numbers.items()} == NUMBERS.get(node_id, {}), node_id
        choices = settings_of(schema, io.Combo.Input)
        assert sorted(choices) == sorted([*CHOICES.get(node_id, []), *FILES.get(node_id, [])]), node_id
        plain = {*numbers, *choices, *settings_of(schema, io.String.Input, io.Boolean.Input)}
        sockets = {item.id: item.get_io_type() for item in schema.inputs if item.id not in plain}
        assert sockets.keys() == SOCKETS[node_id].keys(), node_id
        assert all(kind == SOCKETS[node_id][name] for name, kind in sockets.items() if SOCKETS[node_id][name] != "LAYERS"), node_id
        assert right.inputs(node_id).keys() <= plain | sockets.keys(), node_id


@pytest.mark.parametrize("node_id", SOCKETS)
def test_runs_with_the_right_inputs(run: Run, right: Right, node_id: str) -> None:
    outputs = run(node_id, **right.inputs(node_id))
    assert all(output.isfinite().all() for output in outputs if isinstance(output, Tensor))
    assert outputs or node_id == "DiaphaneSaveLayers"


@pytest.mark.parametrize(("node_id", "name", "make", "words"), WIRED)
def test_wrong_inputs(run: Run, right: Right, node_id: str, name: str, make: Value, words: list[str]) -> None:
    inputs = right.inputs(node_id)
    if make is MASKS["another batch"][0] and node_id != "DiaphaneJointFromLayer":
        inputs |= {key: picture(batch=2) for key, kind in SOCKETS[node_id].items() if kind == "IMAGE"}
        inputs |= {"layers": {"layer0": picture(batch=2)}} if node_id == "DiaphaneComposite" else {}
    if name == "images" and node_id == "DiaphaneSplitLayers" and make is not PICTURES["no picture in it"][0]:
        del inputs["samples"], inputs["vae"]
        inputs["layers"] = "foreground"
    if name == "samples" and node_id == "DiaphaneSplitLayers":
        inputs["layers"] = "foreground"
    told(lambda: run(node_id, **{**inputs, name: make()}), words)
    right.after(run, node_id, name)


@pytest.mark.parametrize(
    ("node_id", "name"), [(node_id, name) for node_id, sockets in SOCKETS.items() for name, kind in sockets.items() if kind != "LAYERS"]
)
def test_nothing_comes_over_a_wire(run: Run, right: Right, node_classes: dict[str, Any], node_id: str, name: str) -> None:
    """As when a checkpoint has no VAE. An optional input is as good as not connected then."""
    schema = node_classes[node_id].define_schema()
    inputs = {**right.inputs(node_id), name: None}
    needed = (
        {"samples": ["got nothing to take apart", "Connect samples and vae, or images"], "vae": ["without a vae", "Connect the VAE"]}
        if node_id == "DiaphaneSplitLayers"
        else {}
    )
    if next(item for item in schema.inputs if item.id == name).optional and name not in needed:
        assert run(node_id, **inputs)
    else:
        told(lambda: run(node_id, **inputs), needed.get(name, [name, "got nothing"]))
    right.after(run, node_id, name)


@pytest.mark.parametrize(
    ("node_id", "name"), [(node_id, name) for node_id, sockets in SOCKETS.items() for name, kind in sockets.items() if kind == "LAYERS"]
)
@pytest.mark.parametrize("fault", PICTURES)
def test_wrong_layers(run: Run, right: Right, node_id: str, name: str, fault: str) -> None:
    make, words = PICTURES[fault]
    value = make() if name == "background" else {"layer0": picture(), "layer3": make()}
    told(lambda: run(node_id, **{**right.inputs(node_id), name: value}), words)
    right.after(run, node_id, name)


@pytest.mark.parametrize("layers", [None, {}, {"layer0": None, "layer1": None}])
def test_no_layers(run: Run, right: Right, layers: Any) -> None:
    told(lambda: run("DiaphaneSaveLayers", **{**right.inputs("DiaphaneSaveLayers"), "layers": layers}), ["no layers", "Connect"])
    told(lambda: run("DiaphaneComposite", layers=layers), ["no layers", "Connect"])


# --- settings that come over a wire: the host checks those of widgets alone ------------------------------------------------------------


@pytest.mark.parametrize(("node_id", "name"), [(node_id, name) for node_id, numbers in NUMBERS.items() for name in numbers])
@pytest.mark.parametrize("fault", ["too small", "too large", "NaN", "infinite", "text"])
def test_wrong_numbers(run: Run, right: Right, node_id: str, name: str, fault: str) -> None:
    least, greatest = NUMBERS[node_id][name]
    value = {"too small": least - 1, "too large": greatest + 1, "NaN": math.nan, "infinite": math.inf, "text": "a lot"}[fault]
    words = [f"{name} has to be a", f"{least:g} to {greatest:g}", f"got {value!r}"]
    told(lambda: run(node_id, **{**right.inputs(node_id), name: value}), words)
    right.after(run, node_id, name)


@pytest.mark.parametrize(("node_id", "name"), [(node_id, name) for node_id, names in CHOICES.items() for name in names])
@pytest.mark.parametrize("value", ["sideways", 3, ""])
def test_wrong_choices(run: Run, right: Right, node_id: str, name: str, value: Any) -> None:
    told(lambda: run(node_id, **{**right.inputs(node_id), name: value}), [f"{name} has to be one of", f"got {value!r}"])
    right.after(run, node_id, name)


def test_a_choice_is_checked_whatever_it_is_called(pack: ModuleType) -> None:
    """Only files may be others than when the schema was made, which is once."""
    made: list[str] = []

    class Profile(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            made.append("schema")
            return io.Schema(node_id="Profile", display_name="Profile", inputs=[io.Combo.Input("profile", options=["a", "b"])])

        @classmethod
        def execute(cls, profile: str) -> io.NodeOutput:
            return io.NodeOutput(profile)

    node = importlib.import_module(f"{pack.__name__}.nodes.checks").checked(Profile)
    told(lambda: node.execute(profile="c"), ["Profile: profile has to be one of a, b", "got 'c'"])
    assert node.execute(profile="b").result == ("b",)
    assert made == ["schema"]


def test_whole_numbers_may_come_as_floats(run: Run) -> None:
    [made] = run("DiaphaneEmptyLayers", width=512.0, height=256.0, layers="foreground", sets=2.0)
    assert made["samples"].shape == (2, 4, 32, 64)


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


# --- models and VAEs of another kind ---------------------------------------------------------------------------------------------------

NEEDS = {
    "DiaphaneTransparent": {"SDXL", "SD1.5", "Flux"},
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
FAMILIES = ("SDXL", "SD1.5", "Flux")
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


def test_black_above_white(run: Run, right: Right) -> None:
    inputs = right.inputs("DiaphaneRepair")
    told(lambda: run("DiaphaneRepair", **{**inputs, "black": 0.8, "white": 0.2}), ["black 0.8", "white 0.2", "Lower black"])


def test_start_after_end(run: Run, right: Right) -> None:
    for node_id in ("DiaphaneTransparent", "DiaphaneJoint", "DiaphaneBlend"):
        told(lambda node_id=node_id: run(node_id, **{**right.inputs(node_id), "start": 0.9, "end": 0.1}), ["start 0.9", "end 0.1"])


@pytest.mark.parametrize("node_id", SOCKETS)
def test_all_run_in_the_end(run: Run, right: Right, node_id: str) -> None:
    run(node_id, **right.inputs(node_id))


def test_no_model_is_changed(model: Callable[[str], Any]) -> None:
    """Patch nodes work on clones: whatever failed, the base models carry nothing."""
    importlib.import_module("comfy.model_management").unload_all_models()
    for family in FAMILIES:
        base = model(family)
        assert not base.patches and not base.additional_models and not base.injections and not base.wrappers, family
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in base.model.modules()), family
