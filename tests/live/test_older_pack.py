"""Workflows made for the older pack run unchanged, and give the pictures that the same workflows with the new nodes give."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dev import bundled
from dev.prompts import set_widgets
from dev.server import ComfyServer
from dev.stand_ins.swap import swap_prompt

pytestmark = pytest.mark.live

Json = dict[str, Any]

WORKFLOWS = sorted(path.stem for path in (Path(__file__).parents[1] / "older_pack").glob("*.json"))
PREFIX = "LayeredDiffusion"
WIDTH, HEIGHT, STEPS = 192, 128, 2

METHODS = {"SDXL, Conv Injection": "conv"}
FAMILIES = {"SD15": "SD1.5", "SDXL": "SDXL"}


def old_prompt(name: str) -> Json:
    prompt = swap_prompt(bundled.prompt(name), FAMILIES[name.rpartition("_")[2].upper()])
    set_widgets(prompt, width=WIDTH, height=HEIGHT, steps=STEPS)
    return prompt


def pictures(server: ComfyServer, prompt: Json) -> dict[str, Image.Image]:
    """What a prompt saves, by the beginning of the file's name."""
    found = {}
    for path in server.outputs(server.queue(prompt)):
        with Image.open(path) as image:
            found[path.stem.rstrip("_").rpartition("_")[0]] = image.copy()
    return found


@pytest.mark.parametrize("name", WORKFLOWS)
def test_gives_what_the_new_nodes_give(server: ComfyServer, name: str) -> None:
    bundled.draw_cut_out(server.base_directory / "input" / bundled.EXAMPLE, WIDTH, HEIGHT)
    old = old_prompt(name)
    new = renewed(old)
    assert not [node for node in new.values() if node["class_type"].startswith(PREFIX)]
    actual, expected = pictures(server, old), pictures(server, new)
    assert actual.keys() == expected.keys() != set()
    for prefix, picture in actual.items():
        wanted = expected[prefix]
        assert (picture.mode, picture.size) == (wanted.mode, wanted.size) == (wanted.mode, (WIDTH, HEIGHT)), prefix
        difference = np.abs(np.asarray(picture, dtype=int) - np.asarray(wanted, dtype=int))
        assert difference.max() <= 1, prefix  # 8 bits, rounded
        assert np.ptp(np.asarray(picture)) > 0, prefix


def test_all_eight_are_used_and_one_is_transparent_in_each_way(server: ComfyServer) -> None:
    used = {node["class_type"] for name in WORKFLOWS for node in old_prompt(name).values()}
    known = {node_id for node_id in server.object_info() if node_id.startswith(PREFIX)}
    assert {node_id for node_id in used if node_id.startswith(PREFIX)} == known
    assert len(known) == 8
    assert all(server.object_info()[node_id]["deprecated"] for node_id in known)


def test_the_frontend_can_ask_for_replacements(server: ComfyServer) -> None:
    replacements = server.get("/node_replacements")
    assert replacements[f"{PREFIX}Apply"][0]["new_node_id"] == "DiaphaneTransparent"


# --- the same prompt with the new nodes -------------------------------------------------------------------------------------------------


def renewed(prompt: Json) -> Json:
    """A prompt in which the new nodes do what the old ones did."""
    result = copy.deepcopy(prompt)
    for node_id, node in prompt.items():
        if node["class_type"].startswith(PREFIX):
            RENEWALS[node["class_type"].removeprefix(PREFIX)](result, node_id, node["inputs"])
    return result


def put(prompt: Json, node_id: str, class_type: str, **inputs: Any) -> None:
    prompt[node_id] = {"class_type": class_type, "inputs": {key: value for key, value in inputs.items() if value is not None}}


def redirect(prompt: Json, source: list[Any], target: list[Any]) -> None:
    """Connects to `target` what was connected to `source`."""
    for node in prompt.values():
        node["inputs"].update({key: target for key, value in node["inputs"].items() if value == source})


def loader(prompt: Json) -> str:
    return next(node_id for node_id, node in prompt.items() if node["class_type"] == "StandInCheckpoint")


def apply(prompt: Json, node_id: str, old: Json) -> None:
    method = METHODS.get(old["config"], "attention")
    weight = 1.0 if old["config"].startswith("SD15") else old["weight"]  # which the older pack never used for SD1.5
    put(prompt, node_id, "DiaphaneTransparent", model=old["model"], method=method, weight=weight, start=0.0, end=1.0)


def prompts_of_layers(prompt: Json, node_id: str, layers: str, **own: Any) -> None:
    """Layer Prompts before every sampler of the model that comes from `node_id`."""
    for node in list(prompt.values()):
        if node["class_type"] == "KSampler" and node["inputs"]["model"] == [node_id, 0]:
            put(prompt, f"{node_id}p", "DiaphaneLayerPrompts", base=node["inputs"]["positive"], layers=layers, **own)
            node["inputs"]["positive"] = [f"{node_id}p", 0]


def joint(prompt: Json, node_id: str, old: Json) -> None:
    put(prompt, node_id, "DiaphaneJoint", model=old["model"], weight=1.0, start=0.0, end=1.0)
    own = {"foreground": old["fg_cond"], "background": old["bg_cond"], "blended": old["blended_cond"]}
    prompts_of_layers(prompt, node_id, "foreground, background, blended", **own)


def joint_from_layer(prompt: Json, node_id: str, old: Json) -> None:
    given, other = ("foreground", "background") if "Foreground" in old["config"] else ("background", "foreground")
    inputs = {"model": old["model"], "image": old["image"], "given": given, "fit": "crop"}
    put(prompt, node_id, "DiaphaneJointFromLayer", **inputs, weight=1.0, start=0.0, end=1.0)
    prompts_of_layers(prompt, node_id, f"{other}, blended", **{other: old["cond"], "blended": old["blended_cond"]})


def encoded(prompt: Json, link: list[Any]) -> list[Any]:
    """The picture that the LATENT of a link was encoded from."""
    return prompt[link[0]]["inputs"]["pixels"]


def given_latent(prompt: Json, node_id: str, class_type: str, old: Json, **inputs: Any) -> None:
    put(prompt, node_id, class_type, model=old["model"], vae=[loader(prompt), 2], fit="crop", weight=old["weight"], start=0.0, end=1.0)
    prompt[node_id]["inputs"].update(inputs)
    redirect(prompt, [node_id, 1], old["cond"])
    redirect(prompt, [node_id, 2], old["uncond"])


def blend(prompt: Json, node_id: str, old: Json) -> None:
    given = old["config"].removeprefix("SDXL, ").lower()
    given_latent(prompt, node_id, "DiaphaneBlend", old, image=encoded(prompt, old["latent"]), given=given)


def extract(prompt: Json, node_id: str, old: Json) -> None:
    wanted = "background" if old["config"] == "SDXL, Foreground" else "foreground"
    pictures = {"layer": encoded(prompt, old["latent"]), "blended": encoded(prompt, old["blended_latent"])}
    given_latent(prompt, node_id, "DiaphaneExtract", old, extract=wanted, **pictures)


def decode_inputs(prompt: Json, old: Json) -> Json:
    inputs = {"samples": old["samples"], "images": old["images"], "vae": [loader(prompt), 2]}
    return {**inputs, "family": FAMILIES[old["sd_version"]], "passes": 8, "tile_size": 0}


def decode_rgba(prompt: Json, node_id: str, old: Json) -> None:
    put(prompt, node_id, "DiaphaneVAEDecode", **decode_inputs(prompt, old))


def decode(prompt: Json, node_id: str, old: Json) -> None:
    """Its two outputs are joined again further on, by way of Invert Mask: take the joined picture itself."""
    decode_rgba(prompt, node_id, old)
    joined = next(key for key, node in prompt.items() if node["class_type"] == "JoinImageWithAlpha")
    redirect(prompt, [joined, 0], [node_id, 0])
    del prompt[joined]


def split(prompt: Json, node_id: str, old: Json) -> None:
    """The first layer of each set is decoded with alpha, whatever it is."""
    put(prompt, f"{node_id}l", "LatentFromBatch", samples=old["samples"], batch_index=0, length=1)
    put(prompt, f"{node_id}i", "ImageFromBatch", image=old["images"], batch_index=0, length=1)
    decode_rgba(prompt, f"{node_id}d", {**old, "samples": [f"{node_id}l", 0], "images": [f"{node_id}i", 0]})
    redirect(prompt, [node_id, 0], [f"{node_id}d", 0])
    for frame in range(1, old["frames"]):
        put(prompt, f"{node_id}f{frame}", "ImageFromBatch", image=old["images"], batch_index=frame, length=1)
        redirect(prompt, [node_id, frame], [f"{node_id}f{frame}", 0])
    del prompt[node_id]


RENEWALS: dict[str, Callable[[Json, str, Json], None]] = {
    "Apply": apply,
    "JointApply": joint,
    "CondApply": blend,
    "CondJointApply": joint_from_layer,
    "DiffApply": extract,
    "Decode": decode,
    "DecodeRGBA": decode_rgba,
    "DecodeSplit": split,
}
