"""Full-size diffusion models with random weights, in ComfyUI."""

# ComfyUI is not typed, and only there once it has been imported.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

from typing import Any

import torch

from dev.full_size import configured


def random_model(family: str, device: torch.device, dtype: torch.dtype, compute_dtype: torch.dtype | None = None) -> Any:
    """A ModelPatcher of the family "SD1.5" or "SDXL" with weights of `dtype`. Needs ComfyUI in this process."""
    from comfy.model_patcher import CoreModelPatcher

    model = configured(family, dtype, None if compute_dtype == dtype else compute_dtype).get_model({}, "", device=device)
    with torch.no_grad():
        for parameter in model.diffusion_model.parameters():
            parameter.normal_(std=0.02)
    return CoreModelPatcher(model, load_device=device, offload_device=device)
