"""A step of a full-size SD1.5 UNet with random weights, whose three layers share attention, against the same batch without."""

# The host is not typed.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .decode import shapes
from .measure import costs
from .table import Row

FRAMES = 3
SIDES = (256, 512)
STEP = 5.0  # sigma
GOAL = "1.15 times a plain step"


def rows(device: torch.device, dtype: torch.dtype) -> Iterator[Row]:
    """Needs the host in this process."""
    from comfy.model_patcher import CoreModelPatcher
    from comfy.supported_models import SD15

    from dev.full_size import UNETS
    from lib_layerdiffuse.host.attention_sharing import share_attention

    layout = UNETS["SD1.5"] | {"num_heads": 8, "num_head_channels": -1}
    config = SD15(dict(layout))
    config.unet_config.update(layout)
    config.set_inference_dtype(dtype, None)
    model = config.get_model({}, "", device=device)
    with torch.no_grad():
        for parameter in model.diffusion_model.parameters():
            parameter.normal_(std=0.02)
    plain = CoreModelPatcher(model, load_device=device, offload_device=device)
    weights = {key: torch.randn(shape, dtype=dtype) * 0.02 for key, shape in shapes("sd15_attention_sharing_f3").items()}
    shared = share_attention(plain, weights)
    for side in SIDES:
        latent = torch.randn(FRAMES, 4, side // 8, side // 8, device=device)
        text = torch.randn(FRAMES, 77, 768, device=device, dtype=dtype)
        ours, other = costs(partial(step, shared, latent, text), partial(step, plain, latent, text), repeats=2)
        yield Row(f"UNet step, 3 layers of {side}x{side}, {dtype}".replace("torch.", ""), ours, other, goal=GOAL)


def step(patcher: Any, latent: Tensor, text: Tensor) -> Tensor:
    """What the host does around each step; the injections of one model take out those of the other."""
    import comfy.model_management as memory

    memory.load_models_gpu([patcher, *patcher.get_nested_additional_models()])
    sigma = torch.full((len(latent),), STEP, device=latent.device)
    options = {"cond_or_uncond": [0], "sigmas": sigma, **patcher.model_options["transformer_options"]}
    patcher.pre_run()
    try:
        patcher.prepare_state(sigma, {"transformer_options": options})
        return patcher.model.apply_model(latent, sigma, c_crossattn=text, transformer_options=options)
    finally:
        patcher.cleanup()
