"""A trained brush: an object inside of an area of a given background, as a layer of its own (SmartBrush, in layers)."""

from __future__ import annotations

import uuid

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from torch import Tensor

from ...errors import DiaphaneError
from ...pixels.fit import CROP, STRETCH, fit_to
from ...pixels.straight import mask_planes, on_grey
from ...weights.catalogue import Family, Role
from ..alpha.alpha_vae import AlphaVAE
from ..alpha.transparent_vae import opaque_vae
from ..layers import BLENDED, FOREGROUND
from ..models.families import require_family, require_vae_of
from ..models.weight_files import AUTO, weights_for
from ..patch.attention_sharing import GIVEN_AND_AREA, check_arrangement, share_attention
from ..patch.confined import Confined
from ..patch.control_maps import GREY
from ..patch.generated import set_layers
from ..patch.strength import FULL, Activity, Strength

NODE = "LayerDiffuse Brush"
FRAMES = (FOREGROUND, BLENDED)


def make_trained_brush(
    model: ModelPatcher,
    vae: VAE,
    rgba: Tensor,
    area: Tensor,
    precision: float,
    *,
    fit: str = CROP,
    strength: Strength = FULL,
    file: str = AUTO,
) -> ModelPatcher:
    """A clone of `model` that generates sets of foreground and both blended, painted only inside of the area.

    rgba [1, H, W, 4] in [0, 1], float32, straight alpha: the background. area [1, H, W] or [H, W] in [0, 1], 1 = here; of another size
    it is stretched to the background's. precision in [0, 1]: 1 for an object that fills the area exactly, 0 for one anywhere inside.
    vae: encodes the background and "nothing" when the sampling starts. fit: how background and area are brought to the size of the
    generation. Raises DiaphaneError for models without such weights, for files that do not fit, and for an area without any place.
    """
    family = require_family(model, NODE, {Family.SD15: None, Family.SDXL: "Use LayerDiffuse Blend, then LayerDiffuse Extract."})
    if len(rgba) != 1:
        raise DiaphaneError(f"{NODE} works on one background, got {len(rgba)}. Pick one with Get Image from Batch.")
    if not 0.0 <= precision <= 1.0:
        raise DiaphaneError(f"precision has to be between 0 (anywhere in the area) and 1 (exactly this area), got {precision}.")
    alpha_vae = AlphaVAE(opaque_vae(vae), family)
    require_vae_of(model, alpha_vae.vae, NODE)
    plane = _area_plane(area, *rgba.shape[1:3]).to(rgba.device)
    picture = on_grey(rgba)
    coarseness = 1.0 - precision
    control = torch.cat([picture, plane.movedim(1, -1), torch.full_like(picture[..., :1], coarseness)], dim=-1)
    with weights_for(model, family, Role.BRUSH, file) as weights:
        check_arrangement(weights, frames=len(FRAMES), control=GIVEN_AND_AREA)
        around = (GREY, GREY, GREY, 0.0, coarseness)
        patched = share_attention(model, weights, control=control, strength=strength, fit=fit, around=around)
    set_layers(patched, FRAMES)
    if strength.is_empty:
        return patched

    def outside(height: int, width: int) -> Tensor:
        background = fit_to(picture.movedim(-1, 1), height, width, fit, fill=GREY).movedim(1, -1)
        latents = torch.cat([alpha_vae.empty(height, width, 1)["samples"], alpha_vae.vae.encode(background)])
        return model.model.process_latent_in(latents)

    key = f"diaphane.{uuid.uuid4().hex}"
    Confined(plane, fit, outside, Activity(strength, patched, key), key).attach(patched)
    return patched


def _area_plane(area: Tensor, height: int, width: int) -> Tensor:
    """-> [1, 1, height, width] in [0, 1]"""
    planes = mask_planes(area).clamp(0, 1)
    if len(planes) != 1:
        raise DiaphaneError(f"{NODE} paints in one area, got {len(planes)}. Pick one, or join them with Combine Masks.")
    if not planes.any():
        raise DiaphaneError(f"The area of {NODE} is empty: white is where the object goes. Paint one, or invert the mask.")
    return fit_to(planes, height, width, STRETCH)
