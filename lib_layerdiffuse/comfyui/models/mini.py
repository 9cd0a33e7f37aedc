"""The mini family: a small diffusion model, text encoder and VAE that come with the pack, with LayerDiffuse weights of their own.

They are SD1.5 in layout and have fewer channels, built from ComfyUI's own classes. The rest of the pack treats them as SD1.5, but
looks for the weights of a model or VAE of its own first (`OwnWeights`).
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import comfy.model_detection
import comfy.model_management as memory
import comfy.sd
import comfy.supported_models
import comfy.utils
import folder_paths
import torch
from comfy.model_base import ModelType
from comfy.model_patcher import CoreModelPatcher, ModelPatcher
from torch import Tensor, nn

from ...errors import DiaphaneError
from ...weights.mini import AUTOENCODER, LAYER_WEIGHTS, MODEL, TEXT_ENCODER, with_all_words
from .weight_files import OwnWeights

FOLDER = Path(__file__).resolve().parents[3] / "mini"


class MiniSD15(comfy.supported_models.SD15):
    """SD1.5 with fewer channels, predicting velocity."""

    layer_weights: OwnWeights

    def model_type(self, state_dict: dict[str, Tensor], prefix: str = "") -> ModelType:
        return ModelType.V_PREDICTION


def load_mini(folder: Path = FOLDER) -> tuple[ModelPatcher, comfy.sd.CLIP, comfy.sd.VAE]:
    """Diffusion model, text encoder and VAE. Raises DiaphaneError if the files are not there."""
    model, clip, vae = _load(folder)
    for index, patcher in enumerate((model, clip.patcher, vae.patcher)):
        patcher.cached_patcher_init = (_patcher, (folder, index))
    return model, clip, vae


def _patcher(folder: Path, index: int, disable_dynamic: bool = False) -> ModelPatcher:
    """One of the three anew, as ComfyUI wants it for another card."""
    model, clip, vae = _load(folder, **({"disable_dynamic": True} if disable_dynamic else {}))
    return (model, clip.patcher, vae.patcher)[index]


def _load(folder: Path, **dynamic: bool) -> tuple[ModelPatcher, comfy.sd.CLIP, comfy.sd.VAE]:
    own = OwnWeights({role: folder / f"{name}.safetensors" for role, name in LAYER_WEIGHTS.items()})
    weights, metadata = _read(folder / f"{MODEL}.safetensors")
    settings = json.loads(metadata["mini"])
    model = _model(weights, settings, own, ModelPatcher if dynamic else CoreModelPatcher)
    vae = _vae(*_read(folder / f"{AUTOENCODER}.safetensors"))
    vae.layer_weights = own
    return model, _clip(_read(folder / f"{TEXT_ENCODER}.safetensors")[0], settings, **dynamic), vae


def _model(weights: dict[str, Tensor], settings: dict[str, Any], own: OwnWeights, patcher_class: type[ModelPatcher]) -> ModelPatcher:
    config = MiniSD15(comfy.model_detection.detect_unet_config(weights, ""))
    config.layer_weights = own
    config.unet_config["num_heads"] = settings["heads"]  # weights do not tell; the class asks for SD1.5's eight
    load_device, offload_device = memory.get_torch_device(), memory.unet_offload_device()
    dtypes = config.supported_inference_dtypes
    dtype = memory.unet_dtype(load_device, comfy.utils.calculate_parameters(weights), dtypes, weight_dtype=torch.float16)
    config.set_inference_dtype(dtype, memory.unet_manual_cast(dtype, load_device, dtypes))
    model = config.get_model(weights, "", device=offload_device)
    _set_groups(model.diffusion_model, settings["group"])
    patcher = patcher_class(model, load_device=load_device, offload_device=offload_device)
    model.load_model_weights(dict(weights), "", assign=patcher.is_dynamic())
    return patcher


def _clip(weights: dict[str, Tensor], settings: dict[str, Any], **dynamic: bool) -> comfy.sd.CLIP:
    weights = with_all_words(weights)
    width = weights["text_model.final_layer_norm.weight"].shape[0]
    layers = 1 + max(int(key.split(".")[3]) for key in weights if key.startswith("text_model.encoder.layers."))
    layout = {
        "hidden_size": width,
        "intermediate_size": width * 4,
        "num_attention_heads": settings["text_heads"],
        "num_hidden_layers": layers,
    }
    target = comfy.supported_models.SD15({}).clip_target({})
    clip = comfy.sd.CLIP(
        target,
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        model_options={"clip_l_model_config": layout},
        parameters=comfy.utils.calculate_parameters(weights),
        **dynamic,
    )
    missing, unknown = clip.load_sd({f"clip_l.transformer.{key}": tensor for key, tensor in weights.items()}, full_model=True)
    # As in SD1.5's files: nothing uses the pooled text.
    missing = [key for key in missing if not key.endswith(("text_projection.weight", "logit_scale"))]
    if missing or unknown:
        logging.getLogger("diaphane").warning("mini text encoder: missing %s, unknown %s", missing, unknown)
    return clip


def _vae(weights: dict[str, Tensor], metadata: dict[str, str]) -> Any:
    blocks = [key for key in weights if key.startswith("encoder.down.") and key.endswith(".block.0.conv2.weight")]
    width = weights["encoder.conv_in.weight"].shape[0]
    network = {
        "double_z": True,
        "z_channels": weights["post_quant_conv.weight"].shape[0],
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": width,
        "ch_mult": [weights[f"encoder.down.{level}.block.0.conv2.weight"].shape[0] // width for level in range(len(blocks))],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    vae: Any = comfy.sd.VAE(sd=weights, config={"params": {"ddconfig": network, "embed_dim": network["z_channels"]}})
    _set_groups(vae.first_stage_model, int(metadata["group"]))
    return vae


def _set_groups(network: nn.Module, channels: int) -> None:
    """Normalise so many channels together. ComfyUI's classes have 32 groups, which in a narrow network leaves one channel each."""
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            module.num_groups = module.num_channels // channels


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise DiaphaneError(f"The mini models are not complete: {path} is missing. Install the pack again, with its folder mini.")
    weights, metadata = comfy.utils.load_torch_file(str(path), return_metadata=True)
    return weights, metadata or {}
