"""Every node with everything wrong that can be wired into it: it says so, and the next right run succeeds."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import importlib
import math
from types import ModuleType
from typing import Any

import pytest
import torch
from comfy_api.latest import io
from torch import Tensor

from tests.faults.conftest import Run
from tests.faults.reports import told
from tests.faults.right import Right, Value, models_stay_as_they_are, picture, right
from tests.faults.wrong import BY_KIND, MASKS, PICTURES, document

__all__ = ["models_stay_as_they_are", "right"]


# The sockets of each node, by what flows through them. Compared with the nodes themselves below.
SOCKETS: dict[str, dict[str, str]] = {
    "DiaphaneTransparent": {"model": "MODEL"},
    "DiaphaneJoint": {"model": "MODEL"},
    "DiaphaneJointFromLayer": {"model": "MODEL", "image": "IMAGE", "mask": "MASK"},
    "DiaphaneBlend": {"model": "MODEL", "vae": "VAE", "image": "IMAGE", "mask": "MASK"},
    "DiaphaneExtract": {"model": "MODEL", "vae": "VAE", "blended": "IMAGE", "layer": "IMAGE", "layer_mask": "MASK"},
    "DiaphaneShape": {"model": "MODEL", "vae": "VAE", "area": "MASK"},
    "DiaphaneLayerPrompts": {name: "CONDITIONING" for name in ("base", "foreground", "background", "blended")},
    "DiaphaneEmptyLayers": {},
    "DiaphaneEmptyTransparent": {"vae": "VAE", "area": "MASK"},
    "DiaphaneVAEDecode": {"samples": "LATENT", "vae": "VAE", "images": "IMAGE"},
    "DiaphaneVAEEncode": {"image": "IMAGE", "vae": "VAE", "mask": "MASK"},
    "DiaphaneVAE": {"vae": "VAE"},
    "DiaphaneSplitLayers": {"samples": "LATENT", "vae": "VAE", "images": "IMAGE"},
    "DiaphaneBleed": {"image": "IMAGE", "mask": "MASK"},
    "DiaphanePreview": {"image": "IMAGE", "mask": "MASK"},
    "DiaphanePlaceLayer": {"image": "IMAGE", "mask": "MASK", "canvas": "PICTURE OR LAYERS", "box": "BOUNDING_BOX", "into": "MASK"},
    "DiaphaneComposite": {"layers": "PICTURE OR LAYERS", "background": "PICTURE OR LAYERS", "area": "MASK"},
    "DiaphaneToCore": {"layers": "PICTURE OR LAYERS"},
    "DiaphaneFromCore": {"layers": "LAYERS"},
    "DiaphaneUpscale": {"upscale_model": "UPSCALE_MODEL", "image": "IMAGE", "mask": "MASK"},
    "DiaphaneRepair": {"image": "IMAGE", "mask": "MASK", "area": "MASK"},
    "DiaphaneSaveSheet": {"images": "IMAGE"},
    "DiaphaneSaveAnimation": {"images": "IMAGE"},
    "DiaphaneDropShadow": {"layer": "PICTURE OR LAYERS", "colour": "COLOR"},
    "DiaphaneShadow": {"background": "IMAGE", "layer": "IMAGE", "blended": "IMAGE", "mask": "MASK"},
    "DiaphaneLoadTransparent": {},
    "DiaphaneLoadLayers": {},
    "DiaphaneSaveLayers": {"layers": "PICTURE OR LAYERS"},
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
    "DiaphaneShape": {"precision": (0, 1), "strength": (0, 4), "end": (0, 1)},
    "DiaphaneEmptyLayers": {"width": (64, 8192), "height": (64, 8192), "sets": (1, 64)},
    "DiaphaneEmptyTransparent": {"width": (64, 8192), "height": (64, 8192), "batch_size": (1, 64)},
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
        "box_number": (0, 1000),
    },
    "DiaphaneToCore": {"picture": (0, 4096)},
    "DiaphaneRepair": {"defringe": (0, 64), "black": (0, 1), "white": (0, 1), "gamma": (0.1, 10), "margin": (0, 1024)},
    "DiaphaneSaveSheet": {"columns": (0, 1024), "padding": (0, 256)},
    "DiaphaneSaveAnimation": {"fps": (1, 120), "loop": (0, 1000), "quality": (0, 100)},
    "DiaphaneDropShadow": {"x": (-4096, 4096), "y": (-4096, 4096), "blur": (0, 256), "spread": (0, 1), "opacity": (0, 1)},
    "DiaphaneShadow": {"smooth": (0, 64), "threshold": (0, 1)},
    **{name: {"weight": (-1, 3)} for name in ("LayeredDiffusionApply", "LayeredDiffusionCondApply", "LayeredDiffusionDiffApply")},
    **{name: {"sub_batch_size": (1, 4096)} for name in ("LayeredDiffusionDecode", "LayeredDiffusionDecodeRGBA")},
    "LayeredDiffusionDecodeSplit": {"frames": (2, 3), "sub_batch_size": (1, 4096)},
}
CHOICES: dict[str, list[str]] = {
    "DiaphaneTransparent": ["method"],
    "DiaphaneJointFromLayer": ["given", "fit"],
    "DiaphaneBlend": ["given", "fit"],
    "DiaphaneExtract": ["extract", "fit"],
    "DiaphaneShape": ["fit", "corrections"],
    "DiaphaneLayerPrompts": ["layers"],
    "DiaphaneEmptyLayers": ["layers"],
    "DiaphaneEmptyTransparent": ["family"],
    "DiaphaneVAEDecode": ["family", "passes", "colour"],
    "DiaphaneVAEEncode": ["family"],
    "DiaphaneVAE": ["family", "passes"],
    "DiaphaneSplitLayers": ["layers", "passes"],
    "DiaphanePreview": ["backdrop"],
    "DiaphanePlaceLayer": ["mode", "moves", "anchor", "unit", "flip", "fit"],
    "DiaphaneSaveSheet": ["layout"],
    "DiaphaneSaveAnimation": ["format"],
    "DiaphaneLoadTransparent": ["folder_as"],
    "DiaphaneLoadLayers": ["groups"],
    "DiaphaneComposite": ["blending"],
    "DiaphaneShadow": ["fit"],
    "DiaphaneSaveLayers": ["format", "blending"],
    **{f"LayeredDiffusion{name}": ["config"] for name in ("Apply", "JointApply", "CondApply", "CondJointApply", "DiffApply")},
    **{f"LayeredDiffusion{name}": ["sd_version"] for name in ("Decode", "DecodeRGBA", "DecodeSplit")},
}
FILES: dict[str, list[str]] = {
    **{f"Diaphane{name}": ["file"] for name in ("Transparent", "Joint", "JointFromLayer", "Blend", "Extract")},
    "DiaphaneShape": ["decoder_file", "encoder_file"],
    "DiaphaneVAEDecode": ["decoder_file"],
    "DiaphaneVAEEncode": ["encoder_file"],
    "DiaphaneVAE": ["decoder_file", "encoder_file"],
    "DiaphaneSplitLayers": ["decoder_file"],
    "DiaphaneLoadTransparent": ["image", "folder"],
    "DiaphaneLoadLayers": ["file"],
}

OTHERS = {"MODEL", "VAE", "UPSCALE_MODEL"}

WIRED = [
    pytest.param(node_id, name, make, words, id=f"{node_id}-{name}-{fault}")
    for node_id, sockets in SOCKETS.items()
    for name, kind in sockets.items()
    for fault, (make, words) in BY_KIND.get(kind, {}).items()
    if (node_id, fault) != ("DiaphaneShape", "another batch")  # how many layers there are is known when it samples
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
        assert all(kind == SOCKETS[node_id][name] for name, kind in sockets.items() if SOCKETS[node_id][name] != "PICTURE OR LAYERS"), (
            node_id
        )
        assert right.inputs(node_id).keys() <= plain | sockets.keys(), node_id


@pytest.mark.parametrize("node_id", SOCKETS)
def test_runs_with_the_right_inputs(run: Run, right: Right, node_id: str) -> None:
    outputs = run(node_id, **right.inputs(node_id))
    assert all(output.isfinite().all() for output in outputs if isinstance(output, Tensor))
    assert outputs or node_id in ("DiaphaneSaveLayers", "DiaphaneSaveAnimation")


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
    ("node_id", "name"),
    [(node_id, name) for node_id, sockets in SOCKETS.items() for name, kind in sockets.items() if kind != "PICTURE OR LAYERS"],
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
    ("node_id", "name"),
    [(node_id, name) for node_id, sockets in SOCKETS.items() for name, kind in sockets.items() if kind == "PICTURE OR LAYERS"],
)
@pytest.mark.parametrize("fault", PICTURES)
def test_wrong_layers(run: Run, right: Right, node_id: str, name: str, fault: str) -> None:
    make, words = PICTURES[fault]
    for one in (make(), document(image=make())) if fault != "text" else (make(),):
        value = one if name in ("background", "canvas", "layer") else {"layer0": picture(), "layer3": one}
        told(lambda value=value: run(node_id, **{**right.inputs(node_id), name: value}), words)
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


def test_a_box_and_a_mask(run: Run, right: Right) -> None:
    both = {"box": {"x": 1, "y": 2, "width": 3, "height": 4}, "into": torch.ones(1, 8, 8)}
    told(lambda: run("DiaphanePlaceLayer", **right.inputs("DiaphanePlaceLayer"), **both), ["got box and into", "Disconnect"])


def test_black_above_white(run: Run, right: Right) -> None:
    inputs = right.inputs("DiaphaneRepair")
    told(lambda: run("DiaphaneRepair", **{**inputs, "black": 0.8, "white": 0.2}), ["black 0.8", "white 0.2", "Lower black"])


def test_start_after_end(run: Run, right: Right) -> None:
    for node_id in ("DiaphaneTransparent", "DiaphaneJoint", "DiaphaneBlend"):
        told(lambda node_id=node_id: run(node_id, **{**right.inputs(node_id), "start": 0.9, "end": 0.1}), ["start 0.9", "end 0.1"])


@pytest.mark.parametrize("node_id", SOCKETS)
def test_all_run_in_the_end(run: Run, right: Right, node_id: str) -> None:
    run(node_id, **right.inputs(node_id))
