"""Swaps a workflow's loader nodes for stand-ins; everything else stays as it is.

Works on both formats: the graph that the frontend saves (widget values in order) and the prompt that the API takes.
"""

from __future__ import annotations

import copy
from typing import Any

from dev.workflow import graphs

STAND_INS = {
    "CheckpointLoaderSimple": "StandInCheckpoint",
    "UNETLoader": "StandInModel",
    "CLIPLoader": "StandInCLIP",
    "DualCLIPLoader": "StandInCLIP",
    "VAELoader": "StandInVAE",
    "ControlNetLoader": "StandInControlNet",
    "UpscaleModelLoader": "StandInUpscaler",
}
LORA_LOADERS = ("LoraLoader", "LoraLoaderModelOnly")
LORAS = {"SDXL": "stand_in_lora_sdxl.safetensors", "SD1.5": "stand_in_lora_sd15.safetensors"}


def swap_prompt(prompt: dict[str, Any], family: str, seed: int = 0) -> dict[str, Any]:
    """An API-format prompt with stand-ins of `family`. Outputs keep their order, so links stay as they are."""
    swapped = copy.deepcopy(prompt)
    for node in swapped.values():
        if node["class_type"] in STAND_INS:
            node["class_type"] = STAND_INS[node["class_type"]]
            node["inputs"] = {"family": family, "seed": seed}
        elif node["class_type"] in LORA_LOADERS and family in LORAS:
            node["inputs"]["lora_name"] = LORAS[family]
    return swapped


def swap_workflow(workflow: dict[str, Any], family: str, seed: int = 0) -> dict[str, Any]:
    """A saved workflow, subgraphs included, with stand-ins of `family`."""
    swapped = copy.deepcopy(workflow)
    for graph in graphs(swapped):
        for node in graph["nodes"]:
            if node["type"] in STAND_INS:
                node["type"] = STAND_INS[node["type"]]
                node["widgets_values"] = [family, seed]
                node["inputs"] = []
                node["properties"] = {"Node name for S&R": node["type"]}
            elif node["type"] in LORA_LOADERS and family in LORAS:
                node["widgets_values"][0] = LORAS[family]
    return swapped
