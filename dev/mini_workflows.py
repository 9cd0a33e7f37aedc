"""The bundled workflows on the mini models that come with the pack: small pictures that show what each workflow makes.

What stays as it is: the wiring, and all of Diaphane's nodes with their settings. What changes: loaders, words, sizes and the sampler's
settings; LoRA and ControlNet are bypassed, since there are none for the mini models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from dev import bundled
from dev.stand_ins.swap import STAND_INS, swap_workflow
from dev.workflow import BYPASSED, graphs
from training.data.colours import COLOURS
from training.data.scenes import MEADOW, draw_scenes, paint_scenes
from training.data.shapes import SHAPES
from training.data.sprites import SOLID, draw_sprites, paint

Json = dict[str, Any]

SIDE, SEED = 128, 7
SAMPLER = {"steps": 20, "cfg": 2.5, "sampler_name": "dpmpp_2m", "scheduler": "normal"}
WITHOUT = ("LoraLoader", "ControlNetApplyAdvanced")

# SDXL's ways in two stages have no mini weights; SD1.5's workflows make the same layers at once.
SAME_LAYERS = {
    "background_to_blended_to_foreground_sdxl": "background_to_foreground_sd15",
    "foreground_to_blended_to_background_sdxl": "foreground_to_background_sd15",
    "iterative_layers_sdxl": "iterative_layers_sd15",
}

CUT_OUT, SCENE = "cut-out", "scene"
# What Load Image shows.
PICTURES = {
    "foreground_to_background_sd15": CUT_OUT,
    "background_to_foreground_sd15": SCENE,
    "transparent_image_to_image_sdxl": CUT_OUT,
    "transparent_controlnet_sdxl": CUT_OUT,
}

# By the titles of the nodes; every other prompt is empty.
WORDS: dict[str, dict[str, str]] = {
    "background_to_foreground_sd15": {"Prompt": "a red heart on a green meadow"},
    "batch_assets_sdxl": {
        "Asset 1": "a red glass heart",
        "Asset 2": "a yellow star",
        "Asset 3": "a green glass drop",
        "Asset 4": "a glowing blue ring",
    },
    "detail_pass_sdxl": {"Prompt": "a cyan glass drop"},
    "foreground_to_background_sd15": {"Prompt": "a yellow star on a night sky"},
    "iterative_layers_sd15": {
        "Prompt: background": "a green meadow",
        "Add layer: Tent": "an orange triangle on a green meadow",
        "Add layer: Fox": "a red heart on a green meadow",
        "Add layer: Smoke": "a glowing white circle on a green meadow",
    },
    "joint_layers_sd15": {
        "Prompt: foreground": "a purple flower",
        "Prompt: background": "a sunset",
        "Prompt: blended": "a purple flower on a sunset",
    },
    "retouch_and_upscale_sdxl": {"Prompt": "a pink glass flower"},
    "transparent_controlnet_sdxl": {"Prompt": "a glowing yellow star"},
    "transparent_flux": {"Prompt": "a glowing cyan crescent"},
    "transparent_image_to_image_sdxl": {"Prompt": "a yellow glass star"},
    "transparent_lora_sd15": {"Prompt": "a purple glass flower"},
    "transparent_sd15": {"Prompt": "a green glass ring"},
    "transparent_sdxl": {"Prompt": "a red glass heart"},
}


def on_mini(name: str) -> Json:
    """A bundled workflow with the mini models in place of its own. Load Image names one of the pictures that `draw_inputs` writes."""
    name = SAME_LAYERS.get(name, name)
    workflow = bundled.read(name)
    if bundled.is_mini(name):
        return workflow
    swapped = swap_workflow(workflow, bundled.family(name))  # for what it loads beside the checkpoint
    words = WORDS[name]
    for node in (node for graph in graphs(swapped) for node in graph["nodes"]):
        title = node.get("title", "")
        if node["type"] == STAND_INS["CheckpointLoaderSimple"]:
            node |= {"type": "DiaphaneMini", "widgets_values": []}
        elif node["type"] in WITHOUT:
            node["mode"] = BYPASSED
        elif node["type"] == "EmptySD3LatentImage":  # of sixteen channels
            node["type"] = "EmptyLatentImage"
        elif node["type"] == "LoadImage":
            node["widgets_values"][0] = f"{PICTURES[name]}.png"
        elif title.startswith("Add layer"):
            node["widgets_values"][:2] = [words[title], ""]
        elif node["type"] in ("CLIPTextEncode", "PrimitiveString"):
            node["widgets_values"] = [words.get(title, "")]
    return swapped


def sized(prompt: Json, name: str) -> Json:
    """A prompt of one of these workflows, at the size and with the sampler's settings that suit the mini models."""
    if bundled.is_mini(name):
        return prompt
    small = bundled.shrunk(prompt, SIDE, SIDE, SAMPLER["steps"])
    for node in small.values():
        if node["class_type"] == "KSampler":
            node["inputs"] |= SAMPLER
        elif node["class_type"] == "ImageGrid":
            node["inputs"] |= {"cell_width": SIDE, "cell_height": SIDE}
    return small


def draw_inputs(folder: Path) -> None:
    """Writes the pictures that the workflows load."""
    generator = torch.Generator().manual_seed(SEED)
    star = torch.tensor([SHAPES.index("star")]), torch.tensor([COLOURS.index("yellow")]), torch.tensor([SOLID])
    cut_out = paint(draw_sprites(*star, generator), SIDE)
    scenes = draw_scenes(64, generator)
    scene = paint_scenes(scenes.rows(scenes.kind == MEADOW), SIDE)[:1]
    for name, picture in ((CUT_OUT, cut_out), (SCENE, scene)):
        Image.fromarray((picture[0].movedim(0, -1) * 255).round().byte().numpy()).save(folder / f"{name}.png")
