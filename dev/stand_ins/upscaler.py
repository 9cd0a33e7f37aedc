"""An upscaling model that enlarges by bicubic interpolation, as Load Upscale Model hands it over."""

from __future__ import annotations

import comfy.model_management
from comfy.model_patcher import CoreModelPatcher
from torch import Tensor, nn

SCALE = 4


class Upscaler(nn.Module):
    """[B, 3, H, W] -> [B, 3, H * SCALE, W * SCALE], with what ComfyUI's nodes use of spandrel's ImageModelDescriptor."""

    scale = SCALE

    def __init__(self) -> None:
        super().__init__()
        self.patcher = CoreModelPatcher(
            self,
            load_device=comfy.model_management.get_torch_device(),
            offload_device=comfy.model_management.unet_offload_device(),
        )

    @property
    def model(self) -> nn.Module:
        return self

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(x, scale_factor=SCALE, mode="bicubic", align_corners=False)
