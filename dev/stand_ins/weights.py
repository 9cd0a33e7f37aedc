"""Stand-in weight files: small and made up, under the released names, so that all that loads a file finds one.

`write_all(Path("ComfyUI/models"))` writes them.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from . import shapes
from .seeded import seeded_noise, seeded_weight
from .shapes import RANK, Shapes

LORA_GAIN = 0.5
DIFF_GAIN = 0.03
OUTPUT_GAIN = 0.5

StateDict = dict[str, Tensor]


def write_all(models_dir: Path) -> None:
    """Writes every stand-in file that is not there yet under `models_dir`."""
    layer_model, loras = models_dir / "layer_model", models_dir / "loras"
    for folder in (layer_model, loras):
        folder.mkdir(parents=True, exist_ok=True)
    for name, table in _tables():
        if not (path := layer_model / f"{name}.safetensors").exists():
            save_file(released(name, table), path)
    if not (path := layer_model / "layerlora.safetensors").exists():
        save_file(_half(flux_lora("layerlora")), path)
    if not (path := layer_model / "TransparentVAE.pth").exists():
        torch.save(OrderedDict(flux_transparent_vae("TransparentVAE")), path)
    for family, name in (("SD1.5", "stand_in_lora_sd15"), ("SDXL", "stand_in_lora_sdxl")):
        if not (path := loras / f"{name}.safetensors").exists():
            save_file(_half(community_lora(family)), path)


def _tables() -> Iterator[tuple[str, Shapes]]:
    """The released files for SD1.5 and SDXL, by name, for the narrow models."""
    for name in ("transparent_attn", "transparent_conv", "fg2ble", "bgble2fg"):
        yield f"layer_xl_{name}", shapes.table(f"narrow_sdxl_{name}_shapes")
    blend = shapes.table("narrow_sdxl_fg2ble_shapes")
    yield "layer_xl_bg2ble", blend
    yield "layer_xl_fgble2bg", blend | {"diffusion_model.input_blocks.0.0.weight::diff::0": (32, 12, 3, 3)}
    for name, frames in (("transparent_attn", 1), ("joint", 3), ("fg2bg", 2), ("bg2fg", 2)):
        yield f"layer_sd15_{name}", shapes.attention_sharing_shapes(frames, control=frames == 2)
    for prefix in ("", "layer_sd15_"):
        yield f"{prefix}vae_transparent_encoder", shapes.offset_encoder_shapes(4)
        yield f"{prefix}vae_transparent_decoder", shapes.transparent_decoder_shapes(4)


def released(name: str, table: Shapes) -> StateDict:
    """Half-precision weights for one of the released files for SD1.5 and SDXL. The name is the seed of the noise."""
    if name.endswith("_decoder"):
        return _half(transparent_decoder(table, name))
    return _half({key: _delta(f"{name}.{key}", shape) for key, shape in table.items()} if "layer_xl_" in name else _named(table, name))


def _delta(key: str, shape: tuple[int, ...]) -> Tensor:
    """What a `KEY::lora::N` or `KEY::diff::0` holds; differences have zero mean, norms' included."""
    if "::lora::" in key:
        return seeded_weight(key, shape) * LORA_GAIN
    return seeded_noise(key, shape) * (DIFF_GAIN / math.sqrt(math.prod(shape[1:])))


def transparent_decoder(table: Shapes, name: str) -> StateDict:
    """A decoder whose output is mostly inside [0, 1]."""
    weights = _named(table, name)
    weights["conv_out.weight"] *= OUTPUT_GAIN
    weights["conv_out.bias"] += 0.5
    return weights


def flux_transparent_vae(name: str) -> StateDict:
    """Both Flux networks in one bfloat16 file, beside the start of an ordinary VAE that readers have to skip."""
    weights = {f"decoder.{k}": v for k, v in transparent_decoder(shapes.transparent_decoder_shapes(16), f"{name}.decoder").items()}
    weights |= {f"encoder.{k}": v for k, v in _named(shapes.offset_encoder_shapes(16), f"{name}.encoder").items()}
    weights["sd_vae.encoder.conv_in.weight"] = seeded_weight(f"{name}.sd_vae", (8, 3, 3, 3))
    return {key: tensor.to(torch.bfloat16) for key, tensor in weights.items()}


def flux_lora(name: str) -> StateDict:
    """For the layers of Flux's blocks, as diffusers and PEFT write it."""
    return {key: tensor * LORA_GAIN for key, tensor in _named(shapes.flux_lora_shapes(), name).items()}


def community_lora(family: str) -> StateDict:
    """As kohya's scripts write it: `LAYER.lora_down.weight`, `LAYER.lora_up.weight`, `LAYER.alpha`, for attention and text encoders."""
    layers = {
        f"lora_unet_{key.removesuffix('.weight').replace('.', '_')}": shape
        for key, shape in shapes.unet_shapes(family).items()
        if ".attn" in key and key.endswith(".weight") or key == "input_blocks.0.0.weight"
    }
    for (encoder, width), n, part in product(enumerate(shapes.TEXT_WIDTHS[family].values(), 1), range(shapes.TEXT_LAYERS), "qkv"):
        layers[f"lora_te{encoder}_text_model_encoder_layers_{n}_self_attn_{part}_proj"] = (width, width)
    table: Shapes = {}
    for key, (out, *into) in layers.items():
        table |= {f"{key}.lora_down.weight": (RANK, *into), f"{key}.lora_up.weight": (out, RANK, *(1,) * (len(into) - 1))}
    alphas = {f"{key}.alpha": torch.tensor(float(RANK)) for key in layers}
    return {key: tensor * LORA_GAIN for key, tensor in _named(table, family).items()} | alphas


def _named(table: Shapes, name: str) -> StateDict:
    return {key: seeded_weight(f"{name}/{key}", shape) for key, shape in table.items()}


def _half(weights: StateDict) -> StateDict:
    return {key: tensor.to(torch.float16) for key, tensor in weights.items()}
