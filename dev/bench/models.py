"""Full-size diffusion models with random weights, in the host."""

# The host is not typed, and only there once it has been imported.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

from typing import Any

import torch

from dev.full_size import configured

from .measure import Machine


def random_model(family: str, machine: Machine, dtype: torch.dtype) -> Any:
    """A ModelPatcher of the family "SD1.5" or "SDXL" whose weights are kept in `dtype`. Needs the host in this process."""
    from comfy.model_patcher import CoreModelPatcher

    config = configured(family, dtype, None if dtype == machine.dtype else machine.dtype)
    model = config.get_model({}, "", device=machine.device)
    with torch.no_grad():
        for parameter in model.diffusion_model.parameters():
            parameter.normal_(std=0.02)
    return CoreModelPatcher(model, load_device=machine.device, offload_device=machine.device)
