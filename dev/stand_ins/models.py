"""Diffusion models, text encoders and ControlNets: the host's own classes, narrow, with made-up weights."""

from __future__ import annotations

from typing import Any

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.sdxl_clip
import comfy.supported_models
import folder_paths
import torch
from comfy.controlnet import ControlNet
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .seeded import seeded_weights
from .shapes import POOLED_SDXL, TEXT_LAYERS, TEXT_WIDTHS, unet_config

CLASSES = {
    "SDXL": comfy.supported_models.SDXL,
    "SD1.5": comfy.supported_models.SD15,
    "Flux": comfy.supported_models.Flux,
}


def configured(family: str, unet: dict[str, Any], dtype: torch.dtype = torch.float32, compute: torch.dtype | None = None) -> Any:
    """ComfyUI's configuration of a diffusion model with weights of `dtype`, computed with in `compute` if that is another."""
    config = CLASSES[family](unet)
    config.unet_config |= unet  # the class asks for heads as wide as the real ones
    config.set_inference_dtype(dtype, compute)
    return config


def build_model(family: str, seed: int) -> ModelPatcher:
    """A narrow diffusion model of a family, float32."""
    offload_device = comfy.model_management.unet_offload_device()
    model = configured(family, unet_config(family)).get_model({}, "", device=offload_device)
    patcher = comfy.model_patcher.CoreModelPatcher(
        model, load_device=comfy.model_management.get_torch_device(), offload_device=offload_device
    )
    weights = seeded_weights(_shapes(model.diffusion_model), seed)
    if family != "Flux":
        _remove_noise(weights)
    model.load_model_weights(weights, "", assign=patcher.is_dynamic())
    return patcher


def _remove_noise(weights: dict[str, Tensor], share: float = 0.93, rest: float = 0.07) -> None:
    """Let most of the predicted noise be the input itself, which a sampler then takes away.

    A random prediction would leave latents as wide as the first sigma, and every picture clipped to black and white.
    Eight channels carry x and -x from the first convolution over the last skip to the last one:
    silu(x) - silu(-x) = x.
    """
    last = max(int(key.split(".")[1]) for key in weights if key.startswith("output_blocks."))
    first, skip = weights["input_blocks.0.0.weight"], weights[f"output_blocks.{last}.0.skip_connection.weight"]
    before = skip.shape[1] - first.shape[0]
    signs = torch.cat([torch.eye(4), -torch.eye(4)])

    first[:8] = 0
    first[:8, :, 1, 1] = signs
    skip[:8] = 0
    skip[:8, before : before + 8, 0, 0] = torch.eye(8)
    for name in (f"output_blocks.{last}.0.out_layers.3", f"output_blocks.{last}.1.proj_out"):
        if f"{name}.weight" in weights:
            weights[f"{name}.weight"][:8] = 0
            weights[f"{name}.bias"][:8] = 0
    for name in ("input_blocks.0.0", f"output_blocks.{last}.0.skip_connection", "out.0"):
        weights[f"{name}.bias"][:8] = 0
    weights["out.0.weight"][:8] = 1
    weights["out.2.weight"] *= rest
    weights["out.2.bias"] *= rest
    weights["out.2.weight"][:, :8] = 0
    weights["out.2.weight"][:, :8, 1, 1] = signs.T * share


class _WidePooledSDXL(comfy.sdxl_clip.SDXLClipModel):
    """Narrow text encoders with a pooled output as wide as the real one, which the UNet's vector input is made for."""

    def __init__(self, device="cpu", dtype=None, model_options={}):  # noqa: B006 - the host's signature
        super().__init__(device=device, dtype=dtype, model_options=model_options)
        width = TEXT_WIDTHS["SDXL"]["clip_g"]
        self.clip_g.transformer.text_projection = self.clip_g.operations.Linear(width, POOLED_SDXL, bias=False, dtype=dtype, device=device)


def build_clip(family: str, seed: int) -> comfy.sd.CLIP:
    """Narrow text encoders behind the real tokenizers, float32."""
    options: dict = {f"{name}_model_config": _text_config(name, width) for name, width in TEXT_WIDTHS[family].items()}
    options["dtype"] = torch.float32
    target = CLASSES[family](unet_config(family)).clip_target({})
    if family == "SDXL":
        target.clip = _WidePooledSDXL
    clip = comfy.sd.CLIP(target, embedding_directory=folder_paths.get_folder_paths("embeddings"), model_options=options)
    clip.load_sd(seeded_weights(_shapes(clip.cond_stage_model), seed), full_model=True)
    return clip


def _text_config(name: str, width: int) -> dict:
    if name == "t5xxl":
        return {"d_model": width, "d_ff": width * 2, "d_kv": width // 4, "num_heads": 4, "num_layers": TEXT_LAYERS}
    return {"hidden_size": width, "intermediate_size": width * 2, "num_attention_heads": 4, "num_hidden_layers": TEXT_LAYERS}


def build_controlnet(family: str, seed: int) -> ControlNet:
    """A ControlNet for the narrow UNet of SDXL or SD1.5, float32."""
    config = {key: value for key, value in unet_config(family).items() if key != "out_channels"}
    model = comfy.cldm.cldm.ControlNet(
        **config,
        hint_channels=3,
        dtype=torch.float32,
        operations=comfy.ops.pick_operations(torch.float32, None),
        device=comfy.model_management.unet_offload_device(),
    )
    model.load_state_dict(seeded_weights(_shapes(model), seed))
    return ControlNet(model, load_device=comfy.model_management.get_torch_device())


def _shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of a model's weights, of those too that the host has not allocated yet (dynamic VRAM)."""
    shapes = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    for name, part in module.named_modules():
        if isinstance(part, torch.nn.Linear) and part.weight is None:
            shapes[f"{name}.weight"] = (part.out_features, part.in_features)
            if part.comfy_need_lazy_init_bias:
                shapes[f"{name}.bias"] = (part.out_features,)
    return shapes
