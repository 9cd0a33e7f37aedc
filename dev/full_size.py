"""Files as large as the real ones, with made-up weights: checkpoints that CheckpointLoaderSimple recognises, and released-shaped files.

For the tests that need true widths and true sizes (`make test-full`). Run as a script inside the host, because the shapes of a
checkpoint come from ComfyUI's own classes: `python dev/comfyui.py run dev/full_size.py FOLDER SD1.5 [SDXL]`.
"""

# ComfyUI is not typed, and only there once it has been imported.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from dev.in_process import import_comfyui
from dev.stand_ins.seeded import seeded_weight
from dev.stand_ins.shapes import Shapes, table, unet_config
from dev.stand_ins.weights import released

# The patch of a family, the start of its other files' names, and the patch's table among the golden data's facts.
RELEASED = {
    "SDXL": ("layer_xl_transparent_attn", "", "xl_transparent_attn"),
    "SD1.5": ("layer_sd15_transparent_attn", "layer_sd15_", "sd15_attention_sharing_f1"),
}


def configured(family: str, dtype: torch.dtype, compute: torch.dtype | None = None) -> Any:
    """ComfyUI's configuration of "SD1.5" or "SDXL" at its true width. Needs ComfyUI in this process."""
    from dev.stand_ins import models

    widths = models.CLASSES[family]
    return models.configured(family, unet_config(family) | widths.unet_config | widths.unet_extra_config, dtype, compute)


def checkpoint_shapes(family: str) -> Shapes:
    """{key: shape} of a whole checkpoint: diffusion model, text encoders, VAE."""
    from comfy.ldm.models.autoencoder import AutoencoderKL

    from dev.stand_ins.vae import network_config

    config = configured(family, torch.float16)
    meta = torch.device("meta")
    unet = config.get_model({}, "", device=meta).diffusion_model
    with meta:
        text = config.clip_target().clip()
        vae = AutoencoderKL(ddconfig=network_config(4, width=128, multiples=(1, 2, 4, 4), blocks=2), embed_dim=4)
    parts = {"model.diffusion_model.": unet.state_dict(), "first_stage_model.": vae.state_dict()}
    parts[""] = config.process_clip_state_dict_for_saving(text.state_dict())
    return {prefix + key: tuple(tensor.shape) for prefix, part in parts.items() for key, tensor in part.items()}


def write(folder: Path, family: str) -> None:
    """A checkpoint `full_size_FAMILY.safetensors` and the released-shaped files, below a models folder."""
    checkpoints, layer_model = folder / "checkpoints", folder / "layer_model"
    for target in (checkpoints, layer_model):
        target.mkdir(parents=True, exist_ok=True)
    checkpoint = {key: seeded_weight(key, shape).half() for key, shape in checkpoint_shapes(family).items()}
    save_file(checkpoint, checkpoints / f"full_size_{family}.safetensors")
    patch, prefix, facts = RELEASED[family]
    tables = {patch: facts, f"{prefix}vae_transparent_decoder": "transparent_decoder", f"{prefix}vae_transparent_encoder": "offset_encoder"}
    for name, facts in tables.items():
        save_file(released(name, table(f"facts/{facts}")), layer_model / f"{name}.safetensors")


if __name__ == "__main__":
    models_folder, *families = sys.argv[1:]
    import_comfyui(Path(models_folder).parent, "--cpu")
    for each in families:
        write(Path(models_folder), each)
