"""An upscaling model that enlarges by bicubic interpolation, as Load Upscale Model hands it over."""

from __future__ import annotations

import comfy.model_management
import torch
from comfy.model_patcher import CoreModelPatcher
from torch import Tensor, nn

SCALE = 4


class Enlarger(nn.Module):
    """[B, 3, H, W] -> [B, 3, H * SCALE, W * SCALE]."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(x, scale_factor=SCALE, mode="bicubic", align_corners=False)


class Upscaler:
    """What the host's nodes use of spandrel's ImageModelDescriptor."""

    def __init__(self) -> None:
        self.scale = SCALE
        self.model = Enlarger()
        self.patcher = CoreModelPatcher(
            self.model,
            load_device=comfy.model_management.get_torch_device(),
            offload_device=comfy.model_management.unet_offload_device(),
        )

    def __call__(self, x: Tensor) -> Tensor:
        return self.model(x)

    def to(self, device: torch.device | str) -> Upscaler:
        self.model.to(device)
        return self
