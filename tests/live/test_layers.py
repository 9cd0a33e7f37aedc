"""Layers through a running server: saved files, the blueprints, layers in as many boxes."""

from __future__ import annotations

import json
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from psd_tools import PSDImage
from psd_tools.constants import Resource

from dev import bundled
from dev.prompts import Json, loader, node, save, set_widgets
from dev.server import ComfyServer

pytestmark = pytest.mark.live

SIZE = (128, 128)
BLUEPRINTS = {f"New layer for this scene ({family})": family for family in ("SDXL", "SD1.5")}


def blueprint(name: str) -> Json:
    return json.loads((bundled.BLUEPRINTS / f"{name}.json").read_text(encoding="utf-8"))


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def differences(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(one.astype(int) - other.astype(int))


def by_prefix(paths: list[Path]) -> dict[str, Path]:
    return {path.name.rpartition("_0000")[0]: path for path in paths if "output" in path.parts}


def place(image: list[Any], **settings: Any) -> Json:
    defaults = {"name": "", "mode": "normal", "opacity": 1.0, "x": 0, "y": 0, "scale": 1.0, "rotation": 0.0}
    return node("DiaphanePlaceLayer", image=image, **{**defaults, **settings})


def test_files_hold_the_layers_and_the_workflow(server: ComfyServer) -> None:
    bundled.draw_cut_out(server.base_directory / "input" / "layer.png", 80, 60)
    prompt = {
        "ground": node("EmptyImage", width=SIZE[0], height=SIZE[1], batch_size=1, color=0x336699),
        "file": node("LoadImage", image="layer.png"),
        "layer": place(["file", 0], name="disc", mode="multiply", opacity=0.8, x=30, y=20, scale=1.5),
        "composite": node("DiaphaneComposite", background=["ground", 0], **{"layers.layer0": ["layer", 0]}),
        "image": save(["composite", 0], "flat"),
    }
    prompt["layer"]["inputs"]["mask"] = ["file", 1]
    for form in ("PSD", "OpenRaster", "PNG"):
        inputs = {"layers.layer0": ["composite", 1], "filename_prefix": f"folder/{form}", "format": form, "names": "ground\n"}
        prompt[form] = node("DiaphaneSaveLayers", **inputs)
    workflow = {"nodes": [], "links": [], "version": 0.4}
    history = server.queue(prompt, workflow=workflow)
    assert [item["filename"] for item in history.outputs["PSD"]["files"]] == ["PSD_00001_.psd"]
    shown = history.outputs["PSD"]["images"]
    assert [(item["filename"], item["type"]) for item in shown] == [("ground.png", "temp"), ("disc.png", "temp")]
    files = {path.suffix: path for path in server.outputs(history) if path.parent.name == "folder"}
    flat = picture(by_prefix(server.outputs(history))["flat"])

    document = PSDImage.open(files[".psd"])
    assert [(layer.name, layer.offset, layer.size) for layer in document] == [("ground", (0, 0), SIZE), ("disc", (10, 5), (120, 90))]
    assert differences(np.array(document.topil().convert("RGB")), flat).max() <= 1
    assert b"EmptyImage" in document.image_resources.get_data(Resource.XMP_METADATA)
    with zipfile.ZipFile(files[".ora"]) as archive, archive.open("mergedimage.png") as entry, Image.open(entry) as merged:
        assert differences(np.array(merged), flat).max() <= 1
        assert json.loads(merged.info["workflow"]) == workflow and "EmptyImage" in merged.info["prompt"]
    with Image.open(files[".png"]) as last:
        assert (last.info["Title"], json.loads(last.info["layer"])["x"], last.size) == ("disc", 10, (120, 90))


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_the_host_offers_the_blueprints(server: ComfyServer, name: str) -> None:
    def get(route: str) -> Any:
        with urllib.request.urlopen(f"{server.url}/global_subgraphs{route}") as answer:
            return json.load(answer)

    [found] = [key for key, entry in get("").items() if entry["name"] == name]
    entry = get(f"/{found}")
    assert entry["source"] == "custom_node" and json.loads(entry["data"]) == blueprint(name)


@pytest.mark.parametrize("count", [3, pytest.param(10, marks=pytest.mark.full)])
@pytest.mark.parametrize("name", BLUEPRINTS)
def test_layers_are_boxes_in_a_row(server: ComfyServer, name: str, count: int) -> None:
    paths = by_prefix(server.outputs(server.queue(boxes(name, count))))
    document = PSDImage.open(paths["all"])
    assert [layer.name for layer in document] == ["Background", *map(str, range(count))]
    assert differences(np.array(document.topil().convert("RGB")), picture(paths[f"scene{count - 1}"])).max() <= 1
    before = picture(paths["ground"])
    for index in range(count):
        layer, scene = picture(paths[f"layer{index}"]), picture(paths[f"scene{index}"])
        assert layer.shape == (*SIZE, 4) and scene.shape == (*SIZE, 3)
        allowed = area_mask() if index % 2 else np.ones(SIZE, bool)
        change = differences(scene, before).max(axis=-1)
        assert not change[~allowed].any()
        # Save Image rounds down: an alpha below 1/255 looks like none, and may still tip a colour over to the next value.
        assert (change[layer[..., 3] == 0] <= 1).all()
        before = scene


def area_mask() -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[32:96, 16:64] = True
    return mask


def boxes(name: str, count: int) -> Json:
    """A blueprint several times in a row on a plain ground, every other one confined to an area, and savers for all that comes out."""
    exported = bundled.prompt(name)
    models, ground, area, layer, scene, layers = (node_id for node_id in exported if ":" not in node_id)
    prompt = {
        models: loader(BLUEPRINTS[name]),
        ground: node("EmptyImage", width=SIZE[0], height=SIZE[1], batch_size=1, color=0x8090A0),
        "inside": node("SolidMask", value=1.0, width=48, height=64),
        "outside": node("SolidMask", value=0.0, width=SIZE[0], height=SIZE[1]),
        area: node("MaskComposite", destination=["outside", 0], source=["inside", 0], x=16, y=32, operation="add"),
        "ground": save([ground, 0], "ground"),
    }
    before = [ground, 0]
    for index in range(count):
        copied = json.loads(json.dumps(exported).replace('"1:', f'"{index}:'))
        box = {node_id: entry for node_id, entry in copied.items() if ":" in node_id}
        for entry in box.values():
            entry["inputs"].update({key: before for key, value in entry["inputs"].items() if value == [ground, 0]})
            if not index % 2:
                entry["inputs"].pop("area", None)
        set_widgets(box, name=str(index), seed=index, steps=1)
        prompt |= {
            **box,
            f"layer{index}": save(copied[layer]["inputs"]["images"], f"layer{index}"),
            f"scene{index}": save(copied[scene]["inputs"]["images"], f"scene{index}"),
        }
        before = copied[layers]["inputs"]["layers.layer0"]
    prompt["all"] = node("DiaphaneSaveLayers", filename_prefix="all", format="PSD", names="", **{"layers.layer0": before})
    return prompt
