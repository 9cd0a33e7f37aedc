"""Stand-in weight files: small and made up, under the released names, so that all that loads a file finds one.

`write_all(Path("ComfyUI/models"))` writes them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from . import shapes
from .seeded import seeded_noise, seeded_weight, seeded_weights
from .shapes import MODELS, RANK, Shapes

STAMP = "stand_ins.json"
LORA_GAIN = 0.5
DIFF_GAIN = 0.03
OUTPUT_GAIN = 0.5

StateDict = dict[str, Tensor]


def write_all(models_dir: Path) -> None:
    """Write every stand-in file under `models_dir`, unless they are there already and this code has not changed.

    `models_dir/stand_ins.json` records what was written. Raises FileExistsError rather than replace a file
    that it does not list: that may be a real one.
    """
    stamp = models_dir / STAMP
    known = json.loads(stamp.read_text()) if stamp.is_file() else {"version": "", "files": []}
    version = _version()
    if known["version"] == version and all((models_dir / name).is_file() for name in known["files"]):
        return
    files = _files()
    foreign = [name for name in files if name not in known["files"] and (models_dir / name).exists()]
    if foreign:
        raise FileExistsError(f"{models_dir} holds {foreign[0]}, which no stand-in wrote. Give the stand-ins a models folder of their own.")
    # Claimed before written: an interrupted run may be repeated.
    models_dir.mkdir(parents=True, exist_ok=True)
    stamp.write_text(json.dumps({"version": "", "files": list(files)}))
    for name, make in files.items():
        path = models_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".pth":
            torch.save(OrderedDict(make()), path)
        else:
            save_file({key: tensor.contiguous() for key, tensor in make().items()}, path)
    stamp.write_text(json.dumps({"version": version, "files": list(files)}, indent=1))


def _files() -> dict[str, Callable[[], StateDict]]:
    """Path under the models folder -> what goes into it. The path's stem is the seed of its noise."""
    sdxl, sd15 = (shapes.unet_shapes(MODELS[family]) for family in ("SDXL", "SD1.5"))
    deltas = {
        "layer_xl_transparent_attn": shapes.transparent_attn_shapes(sdxl),
        "layer_xl_transparent_conv": shapes.full_delta_shapes(sdxl, 4),
        "layer_xl_fg2ble": shapes.conv_delta_shapes(sdxl, 8),
        "layer_xl_bg2ble": shapes.conv_delta_shapes(sdxl, 8),
        "layer_xl_fgble2bg": shapes.conv_delta_shapes(sdxl, 12),
        "layer_xl_bgble2fg": shapes.full_delta_shapes(sdxl, 12),
    }
    plain = {
        "layer_sd15_transparent_attn": shapes.attention_sharing_shapes(sd15, 1, control=False),
        "layer_sd15_joint": shapes.attention_sharing_shapes(sd15, 3, control=False),
        "layer_sd15_fg2bg": shapes.attention_sharing_shapes(sd15, 2, control=True),
        "layer_sd15_bg2fg": shapes.attention_sharing_shapes(sd15, 2, control=True),
        "vae_transparent_encoder": shapes.offset_encoder_shapes(4),
        "layer_sd15_vae_transparent_encoder": shapes.offset_encoder_shapes(4),
    }
    decoders = ("vae_transparent_decoder", "layer_sd15_vae_transparent_decoder")
    made: dict[str, Callable[[], StateDict]] = {}
    made |= {name: lambda n=name, t=table: _half(sdxl_deltas(t, n)) for name, table in deltas.items()}
    made |= {name: lambda n=name, t=table: _half(_named(t, n)) for name, table in plain.items()}
    made |= {name: lambda n=name: _half(transparent_decoder(4, n)) for name in decoders}
    made["layerlora"] = lambda: _half(flux_lora("layerlora"))
    files = {f"layer_model/{name}.safetensors": make for name, make in made.items()}
    files["layer_model/TransparentVAE.pth"] = lambda: flux_transparent_vae("TransparentVAE")
    files["loras/stand_in_lora_sd15.safetensors"] = lambda: _half(kohya_lora("SD1.5"))
    files["loras/stand_in_lora_sdxl.safetensors"] = lambda: _half(kohya_lora("SDXL"))
    return files


def sdxl_deltas(table: Shapes, name: str) -> StateDict:
    """Tensors for `KEY::lora::N` and `KEY::diff::0` keys; differences have zero mean, norms' included."""
    weights = {}
    for key, shape in table.items():
        if "::lora::" in key:
            weights[key] = seeded_weight(f"{name}.{key}", shape) * LORA_GAIN
        else:
            weights[key] = seeded_noise(f"{name}.{key}", shape) * (DIFF_GAIN / math.sqrt(math.prod(shape[1:])))
    return weights


def transparent_decoder(latent_channels: int, name: str) -> StateDict:
    """A decoder whose output is mostly inside [0, 1]."""
    weights = _named(shapes.transparent_decoder_shapes(latent_channels), name)
    weights["conv_out.weight"] *= OUTPUT_GAIN
    weights["conv_out.bias"] += 0.5
    return weights


def flux_transparent_vae(name: str) -> StateDict:
    """Both Flux networks in one bfloat16 file, beside the start of an ordinary VAE that readers have to skip."""
    weights = {f"decoder.{k}": v for k, v in transparent_decoder(16, f"{name}.decoder").items()}
    weights |= {f"encoder.{k}": v for k, v in _named(shapes.offset_encoder_shapes(16), f"{name}.encoder").items()}
    weights["sd_vae.encoder.conv_in.weight"] = seeded_weight(f"{name}.sd_vae", (8, 3, 3, 3))
    return {key: tensor.to(torch.bfloat16) for key, tensor in weights.items()}


def flux_lora(name: str) -> StateDict:
    """Diffusers / PEFT keys: `LAYER.lora_A.weight` [rank, in], `LAYER.lora_B.weight` [out, rank]."""
    table: Shapes = {}
    for key, (out, into) in shapes.flux_linear_shapes(MODELS["Flux"]).items():
        table |= {f"{key}.lora_A.weight": (RANK, into), f"{key}.lora_B.weight": (out, RANK)}
    return {key: tensor * LORA_GAIN for key, tensor in _named(table, name).items()}


def kohya_lora(family: str) -> StateDict:
    """A community LoRA: `LAYER.lora_down.weight`, `LAYER.lora_up.weight`, `LAYER.alpha`."""
    weights: StateDict = {}
    for key, (out, *into) in shapes.kohya_layers(family):
        down, up = (RANK, *into), (out, RANK, *(1,) * (len(into) - 1))
        weights[f"{key}.lora_down.weight"] = seeded_weight(f"{family}.{key}.down", down) * LORA_GAIN
        weights[f"{key}.lora_up.weight"] = seeded_weight(f"{family}.{key}.up", up) * LORA_GAIN
        weights[f"{key}.alpha"] = torch.tensor(float(RANK))
    return weights


def _named(table: Shapes, name: str) -> StateDict:
    prefixed = seeded_weights({f"{name}/{key}": shape for key, shape in table.items()})
    return {key.removeprefix(f"{name}/"): tensor for key, tensor in prefixed.items()}


def _half(weights: StateDict) -> StateDict:
    return {key: tensor.to(torch.float16) for key, tensor in weights.items()}


def _version() -> str:
    sources = (Path(__file__).with_name(f"{name}.py") for name in ("seeded", "shapes", "weights"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
