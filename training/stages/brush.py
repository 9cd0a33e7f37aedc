"""A trained brush (SmartBrush, in layers): background, area and its precision -> foreground and blended picture in the area.

The network paints only inside of the area: outside of it, it is given what is there already. Beside the picture it predicts where the
object is.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from lib_layerdiffuse.nets.attention_sharing import CELL, AttentionSharing

from ..data.layer_folder import BLENDED, FOREGROUND
from ..data.precision import COARSEST, area
from ..loop import Draws
from ..models.schedule import noisy, target
from .diffusion import DiffusionObjective

FRAMES = (FOREGROUND, BLENDED)
CONTROL = 5  # channels of the control picture: the background's three, the area, its precision
MASK_WEIGHT = 0.01  # lambda of equation 10
EXACT = 0.5  # share of the areas that are the object's outline
WHOLE = 0.2  # share of the items without an area and a background: text to image
FIRST_CONTROL, HEAD = "kwargs_encoder.blocks_0.0.weight", "mask_head"


class BrushObjective(DiffusionObjective):
    """Squared error of the prediction inside of the area (equation 8), and DICE loss of the predicted object mask (equation 9).

    The frames are foreground and blended picture. All of an item's frames are as they are without the object outside of the area.
    """

    def forward(self, draws: Draws, player: str = "") -> dict[str, Tensor]:
        assert self.sharing is not None and self.data.outline is not None and self.data.without is not None
        step = self.step(draws)
        assert step.control is not None
        device, frames = step.clean.device, self.data.frames
        outlines = self.data.outline[step.items]
        areas, s = self.areas(draws, outlines[:, 0].bool())
        whole = s.isnan()
        plane = torch.where(whole, 1.0, s)[:, None, None, None].expand_as(areas)
        control = torch.cat([areas, plane], dim=1).to(device) * 2 - 1
        picture = torch.where(whole.to(device)[:, None, None, None], 0.0, step.control)

        inside = repeat(cells(areas), "n ... -> (n f) ...", f=frames).to(device)
        without = rearrange(self.data.without[step.items].float(), "n f ... -> (n f) ...").to(device)
        x = torch.where(inside > 0, noisy(step.clean, step.noise, step.t), without)
        features = self.unet.features(x, step.t, step.text, step.vector, self.sharing, torch.cat([picture, control], dim=1))
        predicted = self.unet.out[-1](features).float()
        error = (predicted - target(step.clean, step.noise, step.t, self.prediction)).square().mean(dim=1, keepdim=True)
        squared = (error * inside).sum() / inside.sum()
        losses = {"total": squared, "squared": squared}
        if self.sharing.mask_head is not None:
            overlap = dice(self.sharing.object_mask(features[::frames]).float(), outlines.to(device).float())
            losses |= {"total": squared + MASK_WEIGHT * overlap, "mask": overlap}
        return losses

    def areas(self, draws: Draws, outlines: Tensor) -> tuple[Tensor, Tensor]:
        """Outlines [N, H, W] bool -> areas [N, 1, H, W] of 0 and 1, and s/S [N], NaN where the area is the whole picture."""
        exact = (draws.uniform(draws.batch) < EXACT)[draws.rows]
        coarser = 1 + (draws.uniform(draws.batch) * COARSEST).long()[draws.rows]
        whole = (draws.uniform(draws.batch) < WHOLE)[draws.rows]
        s = torch.where(exact, 0, coarser)
        areas = torch.stack([area(outline, int(step)) for outline, step in zip(outlines, s, strict=True)])
        areas = areas | whole[:, None, None]
        return areas.unsqueeze(1).float(), torch.where(whole, torch.nan, s / COARSEST)


def cells(areas: Tensor) -> Tensor:
    """Areas [N, 1, H, W] -> 1 for every cell of the latent that they touch, else 0: [N, 1, H/8, W/8]."""
    return (F.max_pool2d(areas, CELL) > 0).to(areas.dtype)


def dice(predicted: Tensor, outline: Tensor) -> Tensor:
    """Mean over the items of 1 - 2 sum(XY) / (sum X + sum Y), for masks [N, 1, H, W] in [0, 1]."""
    axes = (1, 2, 3)
    return (1 - 2 * (predicted * outline).sum(axes) / (predicted.sum(axes) + outline.sum(axes)).clamp(min=1.0)).mean()


def brush_from(start: Mapping[str, Tensor], features: int, *, mask_head: bool = True) -> AttentionSharing:
    """A brush that continues a network for layers beside a given background ("background -> foreground + blended").

    features: channels that the UNet's last convolution reads. What the first control convolution makes of area and precision is
    random at first, as strong as what it makes of the picture. Raises ValueError for any other network.
    """
    if FIRST_CONTROL not in start or start[FIRST_CONTROL].shape[1] > CONTROL:
        raise ValueError("a brush starts from a network for layers beside a given background (such as layer_sd15_bg2fg.safetensors)")
    weights = {key: tensor.float() for key, tensor in start.items() if not key.startswith(f"{HEAD}.")}
    first = weights[FIRST_CONTROL]
    new = torch.randn(first.shape[0], CONTROL - first.shape[1], *first.shape[2:]) * first.std()
    weights[FIRST_CONTROL] = torch.cat([first, new], dim=1)
    if mask_head:
        head = torch.nn.Conv2d(features, CELL**2, 3, padding=1)
        weights |= {f"{HEAD}.{name}": tensor.detach() for name, tensor in head.named_parameters()}
    sharing = AttentionSharing.from_shapes({key: tuple(tensor.shape) for key, tensor in weights.items()})
    sharing.load_state_dict(weights)
    return sharing
