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
