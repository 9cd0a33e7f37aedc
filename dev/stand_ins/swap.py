"""Swaps a prompt's loader nodes for stand-ins; everything else stays as it is."""

from __future__ import annotations

import copy
from typing import Any

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
