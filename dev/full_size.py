"""Files as large as the real ones, with made-up weights: checkpoints that CheckpointLoaderSimple recognises, and released-shaped files.

For the tests that need true widths and true sizes (`make test-full`). Run as a script inside the host, because the shapes of a
checkpoint come from ComfyUI's own classes: `python dev/host.py run dev/full_size.py FOLDER SD1.5 [SDXL]`.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from dev import host as hosts

Shapes = dict[str, tuple[int, ...]]

FACTS = hosts.ROOT / "tests" / "golden" / "facts"
RELEASED = {
    "SDXL": {
        "layer_xl_transparent_attn": "xl_transparent_attn",
        "vae_transparent_decoder": "transparent_decoder",
        "vae_transparent_encoder": "offset_encoder",
    },
    "SD1.5": {
        "layer_sd15_transparent_attn": "sd15_attention_sharing_f1",
        "layer_sd15_vae_transparent_decoder": "transparent_decoder",
        "layer_sd15_vae_transparent_encoder": "offset_encoder",
    },
}
_COMMON: dict[str, Any] = {
    "use_checkpoint": False,
    "image_size": 32,
    "use_spatial_transformer": True,
    "legacy": False,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
}
UNETS: dict[str, dict[str, Any]] = {
    "SD1.5": _COMMON
    | {
        "num_res_blocks": [2, 2, 2, 2],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        "channel_mult": [1, 2, 4, 4],
        "transformer_depth_middle": 1,
        "use_linear_in_transformer": False,
        "context_dim": 768,
        "adm_in_channels": None,
        "num_classes": None,
    },
    "SDXL": _COMMON
    | {
        "num_res_blocks": [2, 2, 2],
        "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "channel_mult": [1, 2, 4],
        "transformer_depth_middle": 10,
        "use_linear_in_transformer": True,
        "context_dim": 2048,
        "adm_in_channels": 2816,
        "num_classes": "sequential",
    },
}
VAE = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}


def released_shapes(table: str) -> Shapes:
    """{key: shape} of a released file, by the name of its table among the golden data's facts."""
    return {key: tuple(shape) for key, shape in json.loads((FACTS / f"{table}.json").read_text())["tensors"].items()}


def random_weights(shapes: Mapping[str, tuple[int, ...]], gain: float = 1.0) -> dict[str, Tensor]:
    """Half-precision weights that keep activations in range; norms are one, biases zero."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for key, shape in shapes.items():
        if len(shape) < 2:
            weights[key] = torch.full(shape, 0.0 if key.endswith("bias") else 1.0, dtype=torch.float16)
        else:
            scale = gain / math.sqrt(math.prod(shape[1:]))
            weights[key] = torch.randn(shape, generator=generator).mul_(scale).half()
    return weights


def checkpoint_shapes(family: str) -> Shapes:
    """{key: shape} of a whole checkpoint: diffusion model, text encoders, VAE."""
    import comfy.sd1_clip
    import comfy.sdxl_clip
    import comfy.supported_models as supported
    from comfy.ldm.models.autoencoder import AutoencoderKL

    config = (supported.SD15 if family == "SD1.5" else supported.SDXL)(dict(UNETS[family]))
    config.set_inference_dtype(torch.float16, None)
    meta = torch.device("meta")
    unet = config.get_model({}, "", device=meta).diffusion_model
    with meta:
        text = comfy.sd1_clip.SD1ClipModel() if family == "SD1.5" else comfy.sdxl_clip.SDXLClipModel()
        vae = AutoencoderKL(ddconfig=VAE, embed_dim=4)
    parts = {"model.diffusion_model.": unet.state_dict(), "first_stage_model.": vae.state_dict()}
    return {prefix + key: tuple(tensor.shape) for prefix, part in parts.items() for key, tensor in part.items()} | {
        key: tuple(tensor.shape) for key, tensor in config.process_clip_state_dict_for_saving(text.state_dict()).items()
    }


def write(folder: Path, family: str) -> None:
    """A checkpoint `full_size_FAMILY.safetensors` and the released-shaped files, below a models folder; kept if they are there."""
    checkpoint = folder / "checkpoints" / f"full_size_{family}.safetensors"
    layer_model = folder / "layer_model"
    for target in (checkpoint.parent, layer_model):
        target.mkdir(parents=True, exist_ok=True)
    if not checkpoint.exists():
        save_file(random_weights(checkpoint_shapes(family)), checkpoint)
    for name, table in RELEASED[family].items():
        path = layer_model / f"{name}.safetensors"
        if not path.exists():
            shapes = released_shapes(table)
            weights = random_weights(shapes, gain=0.5)
            if "conv_out.bias" in weights:
                weights["conv_out.bias"] += 0.5
            save_file(weights, path)


def main() -> None:
    tree = str(hosts.locate().tree)
    sys.path.insert(0, tree)
    folder, *families = sys.argv[1:]
    sys.argv = [sys.argv[0], "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    for family in families:
        write(Path(folder), family)


if __name__ == "__main__":
    main()
