"""How large the stand-ins are: configurations and key tables of narrow models and files.

The golden data describes them: `narrow_FAMILY.json` a UNet's configuration, `*_shapes.json` the keys and shapes of weight files, and
`facts/*.json` those of the released ones. Nothing here needs ComfyUI, so that weight files can be written without it.
"""

from __future__ import annotations

import copy
import json
import re
from itertools import product
from pathlib import Path
from typing import Any

Shapes = dict[str, tuple[int, ...]]

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
FAMILIES = ("SDXL", "SD1.5", "Flux")
RANK = 4

_NARROW = {"SDXL": "narrow_sdxl", "SD1.5": "narrow_sd15"}
# The golden data has no Flux transformer.
_FLUX: dict[str, Any] = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "vec_in_dim": 32,
    "context_in_dim": 64,
    "hidden_size": 64,
    "mlp_ratio": 4.0,
    "num_heads": 4,
    "axes_dim": [4, 6, 6],
    "theta": 10000,
    "depth": 2,
    "depth_single_blocks": 4,
    "qkv_bias": True,
    "guidance_embed": True,
    "txt_ids_dims": [],
}

# Text encoder widths: clip_l (+ clip_g) is as wide as the UNet's context, t5xxl as Flux's, clip_l of Flux as its vector.
TEXT_WIDTHS = {"SD1.5": {"clip_l": 48}, "SDXL": {"clip_l": 32, "clip_g": 32}, "Flux": {"clip_l": 32, "t5xxl": 64}}
TEXT_LAYERS = 4
POOLED_SDXL = 1280  # with six 256-wide size embeddings it makes the 2816 of adm_in_channels


def table(name: str) -> Shapes:
    """{key: shape} of the golden data's tests/golden/NAME.json."""
    content = json.loads((GOLDEN / f"{name}.json").read_text())
    return {key: tuple(shape) for key, shape in content.get("tensors", content).items()}


def unet_config(family: str) -> dict[str, Any]:
    """What ComfyUI's model detection would say about a narrow diffusion model of the family, with its heads."""
    return copy.deepcopy(_FLUX) if family == "Flux" else json.loads((GOLDEN / f"{_NARROW[family]}.json").read_text())["unet_config"]


def unet_shapes(family: str) -> Shapes:
    """Of the narrow SDXL or SD1.5 UNet."""
    return table(f"{_NARROW[family]}_unet_shapes")


def offset_encoder_shapes(latent_channels: int) -> Shapes:
    """The offset encoder for 4 or 16 latent channels, a quarter as wide as released."""
    return _quartered(table({4: "encoder_sd_shapes", 16: "encoder_flux_shapes"}[latent_channels]))


def transparent_decoder_shapes(latent_channels: int) -> Shapes:
    """The transparency decoder for 4 or 16 latent channels, a quarter as wide as released."""
    return _quartered(table({4: "decoder_sd_shapes", 16: "decoder_flux_shapes"}[latent_channels]))


def attention_sharing_shapes(frames: int, *, control: bool) -> Shapes:
    """SD1.5 `layer_sd15_*` for the narrow UNet and any number of frames; `control` adds an image encoder of a quarter of its width."""
    name = "control_f2" if control else "plain_f1"
    shapes: Shapes = {}
    for key, shape in table(f"narrow_attention_sharing_{name}_shapes").items():
        if key.startswith("kwargs_encoder."):
            shape = _quarter(shape)
        elif ".control_convs." in key:
            shape = tuple(64 if size == 256 else size for size in shape)  # of the encoder, not of the UNet
        if not re.search(r"(_lora|control_convs)\.[1-9]", key):
            shapes |= {re.sub(r"(_lora|control_convs)\.0", rf"\1.{frame}", key): shape for frame in range(frames)}
    return shapes


def _quartered(shapes: Shapes) -> Shapes:
    return {key: _quarter(shape) for key, shape in shapes.items()}


def _quarter(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A quarter of the widths: what is below 32 is channels of pictures and latents, and kernels."""
    return tuple(size // 4 if size >= 32 else size for size in shape)


def flux_lora_shapes() -> Shapes:
    """`LAYER.lora_A.weight` [rank, in] and `LAYER.lora_B.weight` [out, rank] of the narrow Flux, under the names of diffusers."""
    wide = _FLUX["hidden_size"]
    mlp = int(wide * _FLUX["mlp_ratio"])
    square = dict.fromkeys(("attn.to_q", "attn.to_k", "attn.to_v"), (wide, wide))
    single = square | {"proj_mlp": (mlp, wide), "proj_out": (wide, wide + mlp)}
    double = square | dict.fromkeys(
        (f"attn.{part}" for part in ("to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")), (wide, wide)
    )
    for part in ("ff", "ff_context"):
        double |= {f"{part}.net.0.proj": (mlp, wide), f"{part}.net.2": (wide, mlp)}
    shapes: Shapes = {}
    for blocks, layers, depth in (("transformer_blocks", double, "depth"), ("single_transformer_blocks", single, "depth_single_blocks")):
        for n, (layer, (out, into)) in product(range(_FLUX[depth]), layers.items()):
            name = f"transformer.{blocks}.{n}.{layer}"
            shapes |= {f"{name}.lora_A.weight": (RANK, into), f"{name}.lora_B.weight": (out, RANK)}
    return shapes
