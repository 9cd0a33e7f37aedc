"""What an object does to its background, as layers of their own: the shadow that it casts, and the light."""

from __future__ import annotations

import torch
from torch import Tensor

from .bleed import bleed_rgb
from .composite import common_batch
from .fit import CROP, fit_to
from .gaussian import gaussian_blur
from .linear_blend import to_linear, to_srgb
from .straight import with_alpha

HIDDEN = 0.9  # alpha from which on the background behind a layer is not read
LEAST_SEEN = 0.05  # share of the background in a pixel, to divide by
DARK = 0.05  # encoded as sRGB: in darker places a shadow is measured against this
LUMINANCE = (0.2126, 0.7152, 0.0722)  # Rec. 709, of linear light
FAINT = 1e-4  # beside 1 at full strength, how much places without a shadow count for what the object hides
LEAST = 1e-6  # to divide by


def shadow_layer(
    background: Tensor, layer: Tensor, blended: Tensor, smooth: float = 3.0, threshold: float = 0.03, fit: str = CROP
) -> tuple[Tensor, Tensor]:
    """The shadow and the light that `blended` has and the plain composite of `layer` on `background` lacks.

    background, blended [B or 1, h, w, 1, 3 or 4], whose own alpha does not count, brought to the layer's size by `fit` (`fit.py`); layer
    [B or 1, H, W, 4], straight alpha; all in [0, 1]. smooth: sigma in pixels of the Gaussian over which brightness is compared.
    threshold: the share of brightness that a shadow takes, or the brightness that light adds, up to which it counts as noise.
    -> (shadow, light), each [B, H, W, 4], float32, straight alpha, on the layer's device: black, and colour for blend mode "add".
    background + shadow + light + layer is like `blended`, mixed as Photoshop does it (`composite.py`). Raises DiaphaneError for batches
    that do not go together.

    blended = a F + (1 - a) ((1 - d) B + l). Alpha d of the shadow compares luminance in linear light, as a ratio of blurs, because a blur
    of ratios is noisy in the dark. Light l is the blurred rest, as far as it is brighter. What the object hides continues what is around.
    """
    common_batch([background, layer, blended])
    layer = with_alpha(layer)
    alpha = layer[..., 3:].clamp(0.0, 1.0)
    there, picture = (_at_size_of(layer, image, fit) for image in (background, blended))
    seen = (picture - alpha * layer[..., :3]) / (1.0 - alpha).clamp(min=LEAST_SEEN)
    there, seen, alpha = torch.broadcast_tensors(there, seen, alpha)
    alpha = alpha[..., :1]
    visible = (alpha < HIDDEN).to(alpha)
    # Noise of `seen` grows as 1 / (1 - alpha), and its variance as the square: weights are the inverse of that.
    weight = visible * (1.0 - alpha) ** 2
    total = _blur(weight, smooth).clamp(min=LEAST)
    noise = threshold / total.sqrt()

    before, after = (to_srgb(_blur(_luminance(image) * weight, smooth) / total) for image in (there, seen))
    dark = _without((before - after) / before.clamp(min=DARK), noise).clamp(max=1.0)
    rest = (_blur((seen - (1.0 - dark) * there) * weight, smooth) / total).clamp(0.0, 1.0)
    brightest = rest.amax(dim=-1, keepdim=True)
    rest = rest * (_without(brightest, noise) / brightest.clamp(min=LEAST))

    near = (2.0 * _blur(visible, smooth)).clamp(max=1.0)
    dark = _continued(dark.expand_as(there), visible, near)[..., :1]
    rest = _continued(rest, visible, near)
    return torch.cat((torch.zeros_like(there), dark), dim=-1), _to_be_added(rest, (1.0 - dark) * there)


def _at_size_of(layer: Tensor, image: Tensor, fit: str) -> Tensor:
    """[B, h, w, 1, 3 or 4] -> [B, H, W, 3], float32, on the layer's device."""
    rgb = with_alpha(image)[..., :3].to(layer)
    height, width = layer.shape[1:3]
    return fit_to(rgb.movedim(-1, 1), height, width, fit, fill=0.5).movedim(1, -1)


def _blur(values: Tensor, sigma: float) -> Tensor:
    return gaussian_blur(values.movedim(-1, 1), sigma).movedim(1, -1)


def _luminance(srgb: Tensor) -> Tensor:
    """[..., 3], encoded as sRGB -> [..., 1] in linear light."""
    return (to_linear(srgb) * srgb.new_tensor(LUMINANCE)).sum(dim=-1, keepdim=True)


def _without(values: Tensor, noise: Tensor) -> Tensor:
    """0 up to the noise, unchanged from twice the noise on, and continuous: a plain soft threshold would weaken every shadow."""
    return torch.minimum(values, 2.0 * (values - noise)).clamp(min=0.0)


def _continued(values: Tensor, visible: Tensor, near: Tensor) -> Tensor:
    """[B, H, W, 3] in [0, 1] with other values where nothing is visible: shadows and light of the surroundings, which lead under objects.

    Strong ones count for more, by the square. near: how far the given values are kept there, 1 at what is visible, so that no edge is seen.
    """
    trust = visible * (values.amax(dim=-1, keepdim=True) ** 2 + FAINT) / (1.0 + FAINT)
    around = bleed_rgb(torch.cat((values, trust), dim=-1)).clamp(0.0, 1.0)
    return torch.where(visible > 0.0, values, torch.lerp(around, values, near))


def _to_be_added(rest: Tensor, below: Tensor) -> Tensor:
    """A layer [..., 4] that adds `rest` to `below`, [..., 3] each: the least alpha with which no sum is cut off at 1."""
    alpha = (rest / (1.0 - below).clamp(min=LEAST)).amax(dim=-1, keepdim=True).clamp(max=1.0)
    return torch.cat(((rest / alpha.clamp(min=LEAST)).clamp(max=1.0), alpha), dim=-1)
