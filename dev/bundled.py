"""The workflows that the pack ships, in UI format and as exported prompts: what the demo and the live and browser tests start from.

The template browser shows nothing but a file's name, in the order of names: a name is a number, a title, and the model in brackets.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from dev.comfyui import ROOT
from dev.stand_ins.swap import swap_prompt

Json = dict[str, Any]

FOLDER = ROOT / "workflows"
BLUEPRINTS = ROOT / "subgraphs"
PROMPTS = ROOT / "tests" / "prompts"
# The model that a name ends in, and its family.
FAMILIES = {"SDXL": "SDXL", "SD1.5": "SD1.5", "Flux": "Flux", "mini": "SD1.5"}
# The plain transparent picture of each model.
TRANSPARENT = {
    "mini": "01 Start here - transparent picture, no download (mini)",
    "SDXL": "20 Transparent picture (SDXL)",
    "SD1.5": "40 Transparent picture (SD1.5)",
    "Flux": "60 Transparent picture (Flux)",
}
# What the workflows' Load Image nodes name: ComfyUI ships a picture of this name.
EXAMPLE = "example.png"
# What their Load Layers nodes name. Nobody has it; tests draw one.
DOCUMENT = "layers.psd"


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def read(name: str) -> Json:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def prompt(name: str) -> Json:
    """A workflow in API format, with the seeds and settings that it saves: what the frontend gave when `make prompts` ran last."""
    return json.loads((PROMPTS / f"{name}.json").read_text(encoding="utf-8"))


def family(name: str) -> str:
    """The model family that a workflow is made for."""
    return FAMILIES[_model(name)]


def is_mini(name: str) -> bool:
    """Whether a workflow runs on the models that come with the pack."""
    return _model(name) == "mini"


def _model(name: str) -> str:
    """The model in brackets at the end of a name. ValueError if it is none of FAMILIES."""
    model = name.rpartition(" (")[2].removesuffix(")")
    if model not in FAMILIES:
        raise ValueError(f"The name of {name}.json does not end in a model in brackets: {', '.join(FAMILIES)}.")
    return model


def on_stand_ins(name: str) -> Json:
    """The prompt of a workflow with stand-ins as its loaders, otherwise as it is shipped."""
    return swap_prompt(prompt(name), family(name))


def name_models(folder: Path) -> list[Path]:
    """Writes empty files under the names of the workflows' models: the frontend complains of what is missing. -> those that are new."""
    new = []
    for name in names():
        for model in (model for node in read(name)["nodes"] for model in node["properties"].get("models", [])):
            path = folder / model["directory"] / model["name"]
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
                new.append(path)
    return new


def draw_cut_out(path: Path, width: int, height: int) -> Path:
    """Writes a PNG with soft and hard edges in its alpha: a disc that fades out over a square."""
    _cut_out(width, height).save(path)
    return path


def draw_document(path: Path, width: int, height: int) -> Path:
    """Writes a PSD with that as a layer, called "heart", over another."""
    return write_document(path, ground=Image.linear_gradient("L").resize((width, height)).convert("RGB"), heart=_cut_out(width, height))


def write_document(path: Path, **layers: Image.Image) -> Path:
    """Writes a PSD of pictures, the lowest first."""
    import numpy as np  # these take a while, and most who are here need none of them
    import torch

    from lib_layerdiffuse.documents.bytes import flat_bytes
    from lib_layerdiffuse.documents.psd import write_psd
    from lib_layerdiffuse.pixels.composite import Layer, Layers

    pictures = {name: torch.from_numpy(np.asarray(picture, np.float32) / 255.0)[None] for name, picture in layers.items()}
    width, height = next(iter(layers.values())).size
    stack = Layers(height, width, tuple(Layer(picture, name=name) for name, picture in pictures.items()))
    with path.open("w+b") as file:
        write_psd(file, stack, flat_bytes(stack), {})
    return path


def _cut_out(width: int, height: int) -> Image.Image:
    alpha = Image.new("L", (width, height))
    draw = ImageDraw.Draw(alpha)
    radius = min(width, height) // 3
    for step in range(16):
        inner = radius - step
        draw.ellipse((width // 2 - inner, height // 2 - inner, width // 2 + inner, height // 2 + inner), fill=16 * step + 15)
    draw.rectangle((width // 8, height // 8, width // 3, height // 3), fill=255)
    colours = Image.merge("RGB", [Image.linear_gradient("L").resize((width, height)).rotate(turn) for turn in (0, 90, 180)])
    colours.putalpha(alpha)
    return colours
