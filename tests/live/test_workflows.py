"""Every bundled workflow runs on stand-in models, as the frontend would send it, and gives the pictures that it promises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from dev import bundled
from dev.prompts import set_widgets
from dev.server import ComfyServer

pytestmark = pytest.mark.live

WIDTH, HEIGHT = 192, 128
# No multiple of 8 or 64: sizes have to come back exactly all the same.
CUT_OUT = (180, 132)
SIZES = {
    "29 New object in this area (SDXL)": CUT_OUT,
    "21 Variant of your cut-out (SDXL)": CUT_OUT,
    "27 More detail by a second pass (SDXL)": (WIDTH * 3 // 2, HEIGHT * 3 // 2),
    "28 Retouch the colours and enlarge (SDXL)": (WIDTH * 4, HEIGHT * 4),
    "07 Edit layers elsewhere and bring them back (mini)": CUT_OUT,
}
# These are trimmed; some are shown together, in a size of its own.
TRIMMED = {"26 Assets from a list of prompts (SDXL)", "09 Sprite sheet and animation (mini)", "10 Sticker with a drop shadow (mini)"}
STEPS = 2

# What each workflow saves, by the beginning of the file's name.
SAVES = {
    "29 New object in this area (SDXL)": {"new_object": "RGB", "new_object_layers": "RGB"},
    "05 New object in this area (mini)": {"new_object_mini": "RGB", "new_object_mini_layers": "RGB"},
    "06 Retouch a part of a layer (mini)": {"retouched_mini": "RGBA"},
    "01 Start here - transparent picture, no download (mini)": {"transparent_mini": "RGBA"},
    "02 Foreground, background and both (mini)": {
        "joint_mini_foreground": "RGBA",
        "joint_mini_background": "RGB",
        "joint_mini_blended": "RGB",
        "joint_mini_layers": "RGB",
    },
    "03 A scene layer by layer (mini)": {"iterative_mini": "RGB", "iterative_mini_layers": "RGB"},
    "04 Place layers by boxes (mini)": {"placed_mini": "RGB", "placed_mini_layers": "RGB"},
    "07 Edit layers elsewhere and bring them back (mini)": {"edited_mini": "RGB", "edited_mini_layers": "RGB"},
    "09 Sprite sheet and animation (mini)": {"star_sheet": "RGBA", "star": "RGBA"},
    "10 Sticker with a drop shadow (mini)": {"sticker": "RGBA", "sticker_layers": "RGBA"},
    "11 Object where you draw it (mini)": {"object_where_you_draw": "RGB", "object_where_you_draw_layers": "RGB"},
    "20 Transparent picture (SDXL)": {"transparent": "RGBA"},
    "21 Variant of your cut-out (SDXL)": {"transparent_variant": "RGBA"},
    "22 Transparent picture along given edges (SDXL)": {"transparent_controlnet": "RGBA"},
    "23 Scene around your cut-out (SDXL)": {"blended": "RGB", "background": "RGB"},
    "24 New object before your background (SDXL)": {"blended": "RGB", "foreground": "RGBA"},
    "25 A scene layer by layer (SDXL)": {"scene": "RGB", "scene_layers": "RGB"},
    "26 Assets from a list of prompts (SDXL)": {"asset": "RGBA", "asset_sheet": "RGB"},
    "27 More detail by a second pass (SDXL)": {"detailed": "RGBA"},
    "28 Retouch the colours and enlarge (SDXL)": {"retouched": "RGBA"},
    "40 Transparent picture (SD1.5)": {"transparent_sd15": "RGBA"},
    "41 Transparent picture with a LoRA (SD1.5)": {"transparent_lora": "RGBA"},
    "42 Foreground, background and both (SD1.5)": {
        "joint_foreground": "RGBA",
        "joint_background": "RGB",
        "joint_blended": "RGB",
        "joint_layers": "RGB",
    },
    "43 Background for your cut-out (SD1.5)": {"background": "RGB", "blended": "RGB"},
    "44 Foreground for your background (SD1.5)": {"foreground": "RGBA", "blended": "RGB", "foreground_layers": "RGBA"},
    "45 A scene layer by layer (SD1.5)": {"scene": "RGB", "scene_layers": "RGB"},
    "60 Transparent picture (Flux)": {"transparent_flux": "RGBA"},
    "08 Layers to the ComfyUI editor and back (mini)": {"editor_mini": "RGB", "editor_mini_layers": "RGB"},
}
NEWER = {"CreateBoundingBoxes"}  # ComfyUI has it since 0.27.0
# Loaders whose first widget names a file, with the folder that the file belongs in.
LOADERS = {
    "CheckpointLoaderSimple": "checkpoints",
    "LoraLoader": "loras",
    "ControlNetLoader": "controlnet",
    "UpscaleModelLoader": "upscale_models",
}
# In the log, a patch that was not applied is only a warning, and so is a name that the host does not have.
TROUBLE = ("[ERROR]", "Traceback", "patch type not recognized", "NOT LOADED", "lora key not loaded", "Please fix your code")


@pytest.fixture(scope="module", autouse=True)
def _example(server: ComfyServer) -> None:
    bundled.draw_cut_out(server.base_directory / "input" / bundled.EXAMPLE, *CUT_OUT)
    bundled.draw_document(server.base_directory / "input" / bundled.DOCUMENT, *CUT_OUT)


def test_every_workflow_is_tested() -> None:
    assert bundled.names() == sorted(SAVES)


@pytest.mark.parametrize("name", bundled.names())
def test_says_where_its_models_come_from_and_what_matters(name: str) -> None:
    workflow = bundled.read(name)
    assert [node["type"] for node in workflow["nodes"]].count("MarkdownNote") == 1
    assert all(group["title"] for group in workflow["groups"])
    for node in workflow["nodes"]:
        if node["type"] in LOADERS:
            [model] = node["properties"]["models"]
            assert (model["name"], model["directory"]) == (node["widgets_values"][0], LOADERS[node["type"]])
            assert model["url"].startswith("https://huggingface.co/") and model["url"].endswith(f"/{model['name']}")


@pytest.mark.parametrize("name", bundled.names())
def test_runs_and_saves_what_it_promises(server: ComfyServer, name: str) -> None:
    log_start = server.log.stat().st_size
    prompt = bundled.on_stand_ins(name)
    if missing := NEWER & {node["class_type"] for node in prompt.values()} - server.object_info().keys():
        pytest.skip(f"optional: this ComfyUI has no {', '.join(missing)}")
    set_widgets(prompt, width=WIDTH, height=HEIGHT, steps=STEPS)
    images = server.outputs(server.queue(prompt, workflow=bundled.read(name)))

    saved = {re.sub(r"_\d{5}_$", "", path.stem): path for path in images if "output" in path.parts}
    assert saved.keys() == SAVES[name].keys()
    for prefix, mode in SAVES[name].items():
        with Image.open(saved[prefix]) as image:
            assert image.mode == mode and (name in TRIMMED or image.size == SIZES.get(name, (WIDTH, HEIGHT))), prefix
            assert _varies(image, "R"), f"{prefix} has one colour only"
            assert mode == "RGB" or _varies(image, "A"), f"{prefix} has the same alpha everywhere"
    for preview in set(images) - set(saved.values()):
        with Image.open(preview) as image:
            assert image.mode == "RGB" or name in TRIMMED or preview.parent.name != "temp"  # layers of Save Layers
            assert name in TRIMMED or image.size == SIZES.get(name, (WIDTH, HEIGHT))

    log = _log_since(server.log, log_start)
    assert not [line for line in log.splitlines() if any(sign in line for sign in TROUBLE)]


def _varies(image: Image.Image, band: str) -> bool:
    least, most = image.getchannel(band).getextrema()
    return most > least  # pyright: ignore[reportOperatorIssue]


def _log_since(log: Path, start: int) -> str:
    return log.read_bytes()[start:].decode("utf-8", errors="replace")
