"""The prompts of the bundled workflows on the mini models that come with the pack: small pictures that show what each workflow makes.

What stays as it is: the wiring, and all of Diaphane's nodes with their settings. What changes: loaders, words, sizes and the sampler's
settings; LoRA and ControlNet are left out, since there are none for the mini models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from dev import bundled
from dev.prompts import set_widgets
from dev.stand_ins.swap import swap_prompt
from training.data.colours import COLOURS
from training.data.scenes import MEADOW, draw_scenes, paint_scenes
from training.data.shapes import SHAPES
from training.data.sprites import SOLID, draw_sprites, paint

Json = dict[str, Any]

SIDE, SEED = 128, 7
LARGE = 768  # side of the picture that ComfyUI ships
SAMPLER = {"steps": 20, "cfg": 2.5, "sampler_name": "dpmpp_2m", "scheduler": "normal"}
# What is left out: the inputs that its outputs are replaced by.
WITHOUT = {"LoraLoader": ("model", "clip"), "ControlNetApplyAdvanced": ("positive", "negative")}

# SDXL's ways in two stages have no mini weights; SD1.5's workflows make the same layers at once.
SAME_LAYERS = {
    "23 Scene around your cut-out (SDXL)": "43 Background for your cut-out (SD1.5)",
    "24 New object before your background (SDXL)": "44 Foreground for your background (SD1.5)",
    "25 A scene layer by layer (SDXL)": "45 A scene layer by layer (SD1.5)",
}

CUT_OUT, SCENE, PAINTED = "cut-out", "scene", "painted"
# What Load Image shows.
PICTURES = {
    "21 Variant of your cut-out (SDXL)": CUT_OUT,
    "22 Transparent picture along given edges (SDXL)": CUT_OUT,
    "43 Background for your cut-out (SD1.5)": CUT_OUT,
    "44 Foreground for your background (SD1.5)": SCENE,
    "29 New object in this area (SDXL)": PAINTED,
}

# By the titles of the nodes, or by their ids where titles repeat; every other prompt is empty.
WORDS: dict[str, dict[str, str]] = {
    "20 Transparent picture (SDXL)": {"Prompt": "a red glass heart"},
    "21 Variant of your cut-out (SDXL)": {"Prompt": "a yellow glass star"},
    "22 Transparent picture along given edges (SDXL)": {"Prompt": "a glowing yellow star"},
    "26 Assets from a list of prompts (SDXL)": {
        "Asset 1": "a red glass heart",
        "Asset 2": "a yellow star",
        "Asset 3": "a green glass drop",
        "Asset 4": "a glowing blue ring",
    },
    "27 More detail by a second pass (SDXL)": {"Prompt": "a cyan glass drop"},
    "28 Retouch the colours and enlarge (SDXL)": {"Prompt": "a pink glass flower"},
    "40 Transparent picture (SD1.5)": {"Prompt": "a green glass ring"},
    "41 Transparent picture with a LoRA (SD1.5)": {"Prompt": "a purple glass flower"},
    "42 Foreground, background and both (SD1.5)": {
        "Prompt: foreground": "a purple flower",
        "Prompt: background": "a sunset",
        "Prompt: blended": "a purple flower on a sunset",
    },
    "43 Background for your cut-out (SD1.5)": {"Prompt": "a yellow star on a night sky"},
    "44 Foreground for your background (SD1.5)": {"Prompt": "a red heart on a green meadow"},
    "45 A scene layer by layer (SD1.5)": {
        "Prompt: background": "a green meadow",
        "10:17": "an orange triangle on a green meadow",
        "11:17": "a red heart on a green meadow",
        "12:17": "a glowing white circle on a green meadow",
    },
    "60 Transparent picture (Flux)": {"Prompt": "a glowing cyan crescent"},
    "29 New object in this area (SDXL)": {"Prompt": "a red heart"},
}


def on_mini(name: str) -> Json:
    """The prompt of a bundled workflow with the mini models in place of its own. Load Image names a picture that `draw_inputs` writes."""
    name = SAME_LAYERS.get(name, name)
    prompt = bundled.prompt(name)
    if bundled.is_mini(name):
        return prompt
    for node_id, node in list(prompt.items()):
        if node["class_type"] == "CheckpointLoaderSimple":
            node |= {"class_type": "DiaphaneMini", "inputs": {}}
        elif node["class_type"] == "EmptySD3LatentImage":  # of sixteen channels
            node["class_type"] = "EmptyLatentImage"
        elif node["class_type"] in WITHOUT:
            _leave_out(prompt, node_id)
    if name in PICTURES:
        set_widgets(prompt, "LoadImage", image=f"{PICTURES[name]}.png")
    set_widgets(prompt, "CLIPTextEncode", text="")
    for nodes, words in WORDS[name].items():
        set_widgets(prompt, nodes, text=words, value=words)
    set_widgets(prompt, width=SIDE, height=SIDE, cell_width=SIDE, cell_height=SIDE)
    set_widgets(prompt, "KSampler", **SAMPLER)
    return swap_prompt(prompt, bundled.family(name))  # for what it loads beside the checkpoint


def _leave_out(prompt: Json, node_id: str) -> None:
    """Removes a node and connects what it was given to what it gave."""
    node = prompt.pop(node_id)
    for other in prompt.values():
        for key, value in other["inputs"].items():
            if isinstance(value, list) and value[0] == node_id:
                other["inputs"][key] = node["inputs"][WITHOUT[node["class_type"]][value[1]]]


def draw_inputs(folder: Path) -> None:
    """Writes the pictures and the document that the workflows load."""
    generator = torch.Generator().manual_seed(SEED)
    star, heart = (_sprite(shape, colour, generator) for shape, colour in (("star", "yellow"), ("heart", "red")))
    scenes = draw_scenes(64, generator)
    scene = _image(paint_scenes(scenes.rows(scenes.kind == MEADOW), SIDE)[:1])
    star.save(folder / f"{CUT_OUT}.png")
    scene.save(folder / f"{SCENE}.png")
    painted = Image.new("L", scene.size, 255)
    painted.paste(0, (36, 36, 116, 116))
    Image.merge("RGBA", [*scene.split(), painted]).save(folder / f"{PAINTED}.png")  # as ComfyUI's mask editor keeps an area
    star.resize((LARGE, LARGE), Image.Resampling.NEAREST).save(folder / bundled.EXAMPLE)
    bundled.write_document(folder / bundled.DOCUMENT, ground=scene, heart=heart)


def _sprite(shape: str, colour: str, generator: torch.Generator) -> Image.Image:
    row = torch.tensor([SHAPES.index(shape)]), torch.tensor([COLOURS.index(colour)]), torch.tensor([SOLID])
    return _image(paint(draw_sprites(*row, generator), SIDE))


def _image(picture: torch.Tensor) -> Image.Image:
    return Image.fromarray((picture[0].movedim(0, -1) * 255).round().byte().numpy())
