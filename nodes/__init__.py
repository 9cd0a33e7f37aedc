"""The nodes that artists see, one file per job."""

from __future__ import annotations

from comfy_api.latest import io

from . import (
    bleed,
    blend,
    comfyui_layers,
    composite,
    drop_shadow,
    empty_layers,
    empty_transparent,
    extract,
    joint,
    layer_prompts,
    load_layers,
    load_transparent,
    mini_models,
    place_layer,
    preview,
    repair,
    save_animation,
    save_layers,
    save_sheet,
    shadow_layer,
    shape,
    split_layers,
    transparent,
    transparent_vae,
    upscale,
    vae_decode,
    vae_encode,
)
from .checks import checked

MODULES = (
    mini_models,
    transparent,
    joint,
    blend,
    extract,
    shape,
    layer_prompts,
    empty_layers,
    empty_transparent,
    vae_decode,
    vae_encode,
    transparent_vae,
    split_layers,
    bleed,
    preview,
    place_layer,
    drop_shadow,
    shadow_layer,
    composite,
    comfyui_layers,
    upscale,
    repair,
    load_transparent,
    load_layers,
    save_layers,
    save_sheet,
    save_animation,
)
NODES: list[type[io.ComfyNode]] = [checked(node) for module in MODULES for node in module.NODES]
