"""For each kind of socket, the values that are wrong, and words of what is said about them."""

# pyright: reportMissingImports=false
from __future__ import annotations

import math
from typing import Any

import torch
from comfy.nested_tensor import NestedTensor

from tests.faults.right import SIDE, Inputs, Value, broken, latent, picture

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

BOXES: dict[str, tuple[Value, list[str]]] = {
    "text": (lambda: "a box", ["x, y, width and height", "'a box'"]),
    "no box drawn": (lambda: [], ["0 boxes", "Draw one"]),
    "four numbers": (lambda: [0, 0, 8, 8], ["x, y, width and height", "got 0"]),
    "no width": (lambda: {"x": 1, "y": 2, "height": 3}, ["x, y, width and height", "Create Bounding Boxes"]),
    "a click": (lambda: [[{"x": 1, "y": 2, "width": 0, "height": 0}]], ["0x0 px", "Draw it anew"]),
    "NaN": (lambda: {"x": 1, "y": math.nan, "width": 3, "height": 4}, ["nan", "Draw it anew"]),
    "infinity": (lambda: {"x": 1, "y": 2, "width": math.inf, "height": 4}, ["inf", "Draw it anew"]),
}

COLOURS: dict[str, tuple[Value, list[str]]] = {
    "a number": (lambda: 0x203040, ["COLOR", "got a int"]),
    "a name": (lambda: "red", ["#rrggbb", "'red'"]),
}


def document(**of_layer: Any) -> Inputs:
    return {"layers": [{"image": picture(), **of_layer}]}


DOCUMENTS: dict[str, tuple[Value, list[str]]] = {
    "text": (lambda: "layers", ["LAYERS", "got a str"]),
    "nothing in it": (lambda: {}, ["no picture", "Add Layer"]),
    "no picture in it": (lambda: {"layers": [None, 3, {"name": "fox"}]}, ["no picture", "Add Layer"]),
    "layers that are text": (lambda: {"layers": "fox"}, ["have to be a list", "got a str"]),
    "another version": (lambda: {**document(), "version": 2}, ["version 2", "version 1", "Update"]),
    "another type": (lambda: document(type="text"), ["'text'", "raster"]),
    "another mode": (lambda: document(blend_mode="dissolve"), ["'dissolve'", "linear-dodge"]),
    "a mask that is none": (lambda: document(mask=torch.zeros(SIDE)), ["[batch, height, width]", "[64]"]),
    "a large layer": (lambda: document(w=10**9), ["1000000000x64", "16384"]),
    "a large canvas": (lambda: {**document(), "canvas": (64, 16385)}, ["64x16385", "16384"]),
    **{
        f"picture: {fault}": (lambda make=make: document(image=make()), words)
        for fault, (make, words) in PICTURES.items()
        if fault != "text"
    },
}
BY_KIND = {"IMAGE": PICTURES, "MASK": MASKS, "LATENT": LATENTS, "CONDITIONING": TEXTS}
BY_KIND |= {"BOUNDING_BOX": BOXES, "COLOR": COLOURS, "LAYERS": DOCUMENTS}
