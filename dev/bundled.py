"""The workflows that the pack ships, made ready for small models: what the demo and the live and browser tests start from."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from dev.host import ROOT
from dev.stand_ins.swap import swap_workflow

Json = dict[str, Any]

FOLDER = ROOT / "workflows"
BLUEPRINTS = ROOT / "subgraphs"
FAMILIES = {"sdxl": "SDXL", "sd15": "SD1.5", "flux": "Flux", "mini": "SD1.5"}
# What the workflows' Load Image nodes name: ComfyUI ships a picture of this name.
EXAMPLE = "example.png"


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def read(name: str) -> Json:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def family(name: str) -> str:
    """The model family that a workflow is made for, from the end of its name. ValueError if it says none."""
    suffix = name.rpartition("_")[2]
    if suffix not in FAMILIES:
        raise ValueError(f"The name of {name}.json does not end in a model family: {', '.join(FAMILIES)}.")
    return FAMILIES[suffix]


def is_mini(name: str) -> bool:
    """Whether a workflow runs on the models that come with the pack."""
    return name.endswith("_mini")


def on_stand_ins(name: str) -> Json:
    """A workflow whose loaders are stand-ins and which is otherwise as it is shipped."""
    return swap_workflow(read(name), family(name))


def shrunk(prompt: Json, width: int, height: int, steps: int) -> Json:
    """A prompt for a small picture and few steps, otherwise the same. What comes through a link stays."""
    small = copy.deepcopy(prompt)
    for node in small.values():
        for key, value in (("width", width), ("height", height), ("steps", steps)):
            if isinstance(node["inputs"].get(key), int):
                node["inputs"][key] = value
    return small


def draw_cut_out(path: Path, width: int, height: int) -> Path:
    """Writes a PNG with soft and hard edges in its alpha: a disc that fades out over a square."""
    alpha = Image.new("L", (width, height))
    draw = ImageDraw.Draw(alpha)
    radius = min(width, height) // 3
    for step in range(16):
        inner = radius - step
        draw.ellipse((width // 2 - inner, height // 2 - inner, width // 2 + inner, height // 2 + inner), fill=16 * step + 15)
    draw.rectangle((width // 8, height // 8, width // 3, height // 3), fill=255)
    colours = Image.merge("RGB", [Image.linear_gradient("L").resize((width, height)).rotate(turn) for turn in (0, 90, 180)])
    colours.putalpha(alpha)
    colours.save(path)
    return path
