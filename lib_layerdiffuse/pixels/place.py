"""Scaling and turning a transparent picture: premultiplied, smoothed when it shrinks, with smooth outer edges.

`place` goes by the frame of the picture, `place_object` and `fit_object` by what can be seen in it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DiaphaneError
from .boxes import LARGEST, Box, cut_to, visible_box
from .premultiplied import premultiply, resize_rgba, straighten
from .straight import alpha_of

MARGIN = 1  # transparent pixels around the picture, so that its edges are smooth
TOP_LEFT = "top left"
# Which point of the object is meant by its position: shares of its width and height.
ANCHORS = {
    TOP_LEFT: (0.0, 0.0),
    "top": (0.5, 0.0),
    "top right": (1.0, 0.0),
    "left": (0.0, 0.5),
    "centre": (0.5, 0.5),
    "right": (1.0, 0.5),
    "bottom left": (0.0, 1.0),
    "bottom": (0.5, 1.0),
    "bottom right": (1.0, 1.0),
}
NO_FLIP = "none"
FLIPS = {NO_FLIP: (), "horizontal": (2,), "vertical": (1,), "both": (1, 2)}  # dimensions of [B, H, W, C]
CONTAIN = "contain"
COVER = "cover"
STRETCH = "stretch"
BOTTOM_ALIGNED = "bottom-aligned"
OBJECT_FITS = (CONTAIN, COVER, STRETCH, BOTTOM_ALIGNED)


def place(image: Tensor, scale: float = 1.0, degrees: float = 0.0) -> tuple[Tensor, int, int]:
    """Scale and turn a picture about its centre: [B, H, W, 3 or 4], straight -> (picture, x, y).

    x, y: the new position of its top left corner relative to the old one. Degrees turn clockwise. Unless the turn is a multiple of
    90 degrees the result has 4 channels, transparent in the corners.
    """
    height, width = image.shape[1:3]
    if scale != 1.0:
        image = resize_rgba(image, max(1, round(height * scale)), max(1, round(width * scale)))
    if degrees % 90.0:
        image = _turn(image, math.radians(degrees))
    elif quarters := round(degrees / 90.0) % 4:
        image = image.rot90(-quarters, dims=(1, 2))
    return image, _half(width - image.shape[2]), _half(height - image.shape[1])


def place_object(
    image: Tensor, x: float, y: float, anchor: str = TOP_LEFT, scale: float = 1.0, degrees: float = 0.0
) -> tuple[Tensor, int, int]:
    """Scale and turn what can be seen in a picture and put it so that its anchor lies at x, y of the canvas.

    [B, H, W, 3 or 4], straight -> (picture, x, y): what can be seen and a margin, and the position of its top left corner. The anchor is
    a point of the box around the turned object; one box holds all pictures of a batch. Raises DiaphaneError for a size beyond LARGEST.
    """
    image = _resized(_cut_out(image, degrees), scale, scale)
    return _put(image, x, y, *ANCHORS[anchor])


def fit_object(image: Tensor, box: Box, fit: str = CONTAIN, degrees: float = 0.0) -> tuple[Tensor, int, int]:
    """Turn what can be seen in a picture and fit it into a box of the canvas; otherwise as `place_object`.

    fit: "contain" shows all of it in the middle of the box; "bottom-aligned" on its lower edge; "cover" leaves no part of the box empty
    and reaches over it; "stretch" changes the proportions.
    """
    whole = _cut_out(image, degrees)
    wide, high = _factors(whole, box, fit)
    resized = _resized(whole, wide, high)
    # Soft edges become wider with the picture, so that more of them is seen.
    more_wide, more_high = _factors(resized, box, fit)
    down = 1.0 if fit == BOTTOM_ALIGNED else 0.5
    return _put(_resized(whole, wide * more_wide, high * more_high), box.x + box.width / 2, box.y + box.height * down, 0.5, down)


def _cut_out(image: Tensor, degrees: float) -> Tensor:
    return place(cut_to(image, visible_box(image), MARGIN)[0], degrees=degrees)[0]


def _factors(image: Tensor, box: Box, fit: str) -> tuple[float, float]:
    """How much wider and higher the object becomes."""
    seen = visible_box(image)
    wide, high = box.width / seen.width, box.height / seen.height
    if fit == STRETCH:
        return wide, high
    both = max(wide, high) if fit == COVER else min(wide, high)
    return both, both


def _resized(image: Tensor, wide: float, high: float) -> Tensor:
    height, width = max(1, round(image.shape[1] * high)), max(1, round(image.shape[2] * wide))
    if max(height, width) > LARGEST:
        raise DiaphaneError(f"The object would become {width}x{height} px, more than {LARGEST}. Lower scale, or set fit to contain.")
    return resize_rgba(image, height, width)


def _put(image: Tensor, x: float, y: float, across: float, down: float) -> tuple[Tensor, int, int]:
    seen = visible_box(image)
    return image, round(x - across * seen.width - seen.x), round(y - down * seen.height - seen.y)


def _half(difference: int) -> int:
    return math.floor(difference / 2)


def _turn(image: Tensor, angle: float) -> Tensor:
    """[B, H, W, 3 or 4] -> [B, h, w, 4], just large enough for the turned picture."""
    height, width = image.shape[1:3]
    cosine, sine = math.cos(angle), math.sin(angle)
    turned_width = _same_parity(abs(width * cosine) + abs(height * sine) + 2 * MARGIN, width)
    turned_height = _same_parity(abs(width * sine) + abs(height * cosine) + 2 * MARGIN, height)

    pixels = premultiply(torch.cat((image[..., :3], alpha_of(image)), dim=-1).float()).movedim(-1, 1)  # BHWC -> BCHW
    x = torch.arange(turned_width, device=image.device) - (turned_width - 1) / 2
    y = (torch.arange(turned_height, device=image.device) - (turned_height - 1) / 2)[:, None]
    # Where each pixel of the result comes from, in [-1, 1] over the source.
    grid = torch.stack(((x * cosine + y * sine) * (2 / width), (y * cosine - x * sine) * (2 / height)), dim=-1)
    grid = grid.to(pixels).expand(len(image), -1, -1, -1)
    turned = F.grid_sample(pixels, grid, mode="bicubic", padding_mode="zeros", align_corners=False)
    return straighten(turned.movedim(1, -1))


def _same_parity(length: float, like: int) -> int:
    """The least whole number from `length` on that is odd or even as `like` is, so that the centre stays between the same pixels."""
    whole = math.ceil(length - 1e-6)
    return whole + (whole - like) % 2
