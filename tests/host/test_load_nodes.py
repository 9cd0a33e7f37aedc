"""Load Layers and Load Transparent Image as ComfyUI runs them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import comfy.model_management
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor


def run(node_classes: dict[str, Any], node: str, /, **inputs: Any) -> Any:
    return node_classes[f"Diaphane{node}"].PREPARE_CLASS_CLONE(None).EXECUTE_NORMALIZED(**inputs)


def picture(height: int, width: int, seed: int = 0, channels: int = 4) -> Tensor:
    return torch.randint(0, 256, (1, height, width, channels), generator=torch.Generator().manual_seed(seed)) / 255


def put(base_directory: Path, name: str, image: Tensor) -> Path:
    path = base_directory / "input" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((image[0] * 255).round().byte().numpy()).save(path)
    return path


@pytest.mark.parametrize("form", ["PSD", "OpenRaster"])
def test_layers_go_out_and_come_back(node_classes: dict[str, Any], form: str) -> None:
    def placed(image: Tensor, name: str, **settings: Any) -> Any:
        settings = {"mode": "normal", "opacity": 1.0, "x": 0, "y": 0, "scale": 1.0, "rotation": 0.0, **settings}
        return run(node_classes, "PlaceLayer", image=image, name=name, **settings).result[0]

    ground = placed(picture(20, 30, channels=3), "ground")
    fox, tree = placed(picture(8, 9, 1), "fox", x=26, y=-3), placed(picture(6, 6, 2), "tree", mode="multiply", x=4, y=5)
    layers = {"layer0": ground, "layer1": fox, "layer2": tree}
    composite = run(node_classes, "Composite", layers=layers).result[0]
    saved = run(node_classes, "SaveLayers", layers=layers, filename_prefix="there/back", format=form, names="").ui["files"][-1]
    name = f"{saved['subfolder']}/{saved['filename']} [output]"

    output = run(node_classes, "LoadLayers", file=name, groups="take apart", pick="tree\n\n fox ")
    stack, image, mask, picked, names = output.result
    assert names == "ground\nfox\ntree" and [layer.mode for layer in stack.layers] == ["normal", "normal", "multiply"]
    assert image.shape == composite.shape and (image - composite).abs().max() <= 1 / 255
    assert not mask.any() and mask.shape == (1, 20, 30)
    tree_out, fox_out = picked
    assert (tree_out[:, 5:11, 4:10] - picture(6, 6, 2)).abs().max() <= 0.5 / 255 + 1e-6 and tree_out.shape == (1, 20, 30, 4)
    assert (fox_out[:, :5, 26:] - picture(8, 9, 1)[:, 3:, :4]).abs().max() <= 0.5 / 255 + 1e-6
    assert not fox_out[:, 5:].any() and not fox_out[:, :, :26].any()
    assert "3 layers, 30x20: ground, fox, tree." in output.ui["text"]
    [together] = run(node_classes, "LoadLayers", file=name, groups="merge", pick="").result[3]
    assert torch.equal(together[..., :3], image)
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run(node_classes, "LoadLayers", file=name, groups="merge", pick="")
    with pytest.raises(Exception, match="no layer 'cat'. Write one of these into pick: ground, fox, tree"):
        run(node_classes, "LoadLayers", file=name, groups="merge", pick="cat")


def test_says_what_a_psd_needs(node_classes: dict[str, Any], pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = {"layer0": picture(5, 7)}
    [saved] = run(node_classes, "SaveLayers", layers=layers, filename_prefix="without", format="PSD", names="").ui["files"]
    monkeypatch.delitem(sys.modules, f"{pack.__name__}.lib_layerdiffuse.documents.psd")
    monkeypatch.setitem(sys.modules, "psd_tools.psd", None)
    with pytest.raises(Exception, match="psd-tools, but psd_tools.psd is missing. Install .* or save it as OpenRaster"):
        run(node_classes, "LoadLayers", file=f"{saved['filename']} [output]", groups="merge", pick="")


def test_a_picture_with_its_alpha(node_classes: dict[str, Any], base_directory: Path) -> None:
    image = picture(5, 7)
    put(base_directory, "one/fox.png", image)
    output = run(node_classes, "LoadTransparent", image="one/fox.png", folder="none", folder_as="list")
    [found], [mask], [name] = output.result
    assert torch.equal(found, image) and (mask - (1 - image[..., 3])).abs().max() < 1e-6 and name == "fox"
    [shown] = output.ui["images"]
    assert Image.open(base_directory / "temp" / shown["filename"]).mode == "RGB" and output.ui["text"] == []
    put(base_directory, "one/photo.jpg", image[..., :3])
    output = run(node_classes, "LoadTransparent", image="one/photo.jpg", folder="none", folder_as="list")
    assert output.result[0][0].shape == (1, 5, 7, 4) and "Without alpha and so opaque: photo." in output.ui["text"][0]


def test_a_folder_is_a_list_or_a_batch(node_classes: dict[str, Any], base_directory: Path) -> None:
    small, large = picture(4, 5, 1), picture(6, 9, 2)
    put(base_directory, "many/a.png", small)
    put(base_directory, "many/b.webp", large)
    put(base_directory, "many/below/c.png", small)
    pictures, masks, names = run(node_classes, "LoadTransparent", image="", folder="many", folder_as="list").result
    assert [tuple(found.shape) for found in pictures] == [(1, 4, 5, 4), (1, 6, 9, 4)] and names == ["a", "b"]
    assert [tuple(found.shape) for found in masks] == [(1, 4, 5), (1, 6, 9)]
    output = run(node_classes, "LoadTransparent", image="", folder="many", folder_as="batch")
    [batch], [mask], [name] = output.result
    assert batch.shape == (2, 6, 9, 4) and mask.shape == (2, 6, 9) and name == "many"
    assert torch.equal(batch[:1, 1:5, 2:7], small) and np.count_nonzero(batch[0]) <= small.numel()
    assert "all are 9x6" in output.ui["text"][0] and len(output.ui["images"]) == 2
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run(node_classes, "LoadTransparent", image="", folder="many", folder_as="batch")
