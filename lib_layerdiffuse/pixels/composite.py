"""Layers over one another (Compositing and Blending Level 1, sections 5.8.2 and 9.1), or as ComfyUI's layer editor puts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import DiaphaneError
from .blend import BLENDS, NORMAL
from .linear_blend import LINEAR_BLENDS, to_linear, to_srgb
from .straight import alpha_of

PHOTOSHOP = "as Photoshop"
EDITOR = "as ComfyUI's editor"
BLENDINGS = (PHOTOSHOP, EDITOR)
STRIP_PIXELS = 1 << 16  # composited at a time on a processor, so that the intermediate pictures stay in its cache
LEAST_ALPHA = torch.finfo(torch.float32).tiny  # to divide by where a picture is transparent


@dataclass(frozen=True)
class Layer:
    """A picture on a canvas: image [B, H, W, 3 or 4], straight alpha; x, y: the position of its top left corner.

    A layer that is not visible is kept in files and counts for nothing in the composite.
    """

    image: Tensor
    name: str = ""
    mode: str = NORMAL
    opacity: float = 1.0
    x: int = 0
    y: int = 0
    visible: bool = True


@dataclass(frozen=True)
class Layers:
    """Layers on a canvas of a size, the lowest first."""

    height: int
    width: int
    layers: tuple[Layer, ...]

    def flatten(self, top: int = 0, rows: int | None = None, blending: str = PHOTOSHOP) -> Tensor:
        """The finished picture; see `composite`."""
        return composite(self.layers, self.height, self.width, top, rows, blending)

    def one(self, index: int) -> Layers:
        """The layers of one picture of the batch."""
        chosen = (replace(layer, image=layer.image[min(index, len(layer.image) - 1)][None]) for layer in self.layers)
        return replace(self, layers=tuple(chosen))


def _put_over(canvas: Tensor, source: Tensor, mode: str, opacity: float) -> None:
    """One picture over another of the same size, in place: [B, H, W, 3 or 4] each, straight alpha.

    Where the source is fully transparent, the canvas stays as it is, bit for bit. Alpha outside [0, 1], which
    sharpening filters give, is clamped.
    """
    alpha = alpha_of(source).clamp(0.0, 1.0) * opacity
    shows = alpha > 0.0
    below, alpha_below = canvas[..., :3], canvas[..., 3:]
    above = torch.where(shows, source[..., :3], below)
    # Weight of the source's colour in the result: its part of the resulting alpha.
    cover, backed = alpha, alpha.new_ones(())
    if canvas.shape[-1] == 4:
        backed = alpha_below.clamp(0.0, 1.0)
        alpha_out = torch.addcmul(alpha, backed, 1.0 - alpha)
        cover = alpha / alpha_out.clamp(min=LEAST_ALPHA)
        alpha_below.copy_(torch.where(shows, alpha_out, alpha_below))
    if mode != NORMAL:
        blended = BLENDS[mode](below.clamp(0.0, 1.0), above.clamp(0.0, 1.0))
        above = torch.lerp(above, blended, backed)
    below.lerp_(above, cover)


def _blend_inside(canvas: Tensor, source: Tensor, mode: str, opacity: float) -> None:
    """As `_put_over`, both in linear light, by ComfyUI's editor: the alpha of the canvas stays, and where it is 0 nothing changes."""
    alpha = alpha_of(source).clamp(0.0, 1.0) * opacity
    below = canvas[..., :3]
    above = torch.where(alpha > 0.0, source[..., :3], below)
    if canvas.shape[-1] == 4:
        alpha = torch.where(canvas[..., 3:] > 0.0, alpha, 0.0)
    below.lerp_(LINEAR_BLENDS[mode](below, above), alpha)


def composite(layers: Sequence[Layer], height: int, width: int, top: int = 0, rows: int | None = None, blending: str = PHOTOSHOP) -> Tensor:
    """Layers, the lowest first -> [B, height, width, 3 or 4], float32, straight alpha, on the lowest layer's device.

    Layers are cut at the canvas. If the lowest layer fills the canvas it is the background, kept as it is: the result is opaque
    if it is. top, rows: only that strip of the picture, which is then [B, rows, width, ...], or what there is of it.
    blending: colours as they are and the W3C's rules, as Photoshop does it; or linear light and the rules of ComfyUI's editor
    (`linear_blend.py`). Raises DiaphaneError for batches that do not go together.
    """
    rows = height - top if rows is None else min(rows, height - top)
    count = common_batch([layer.image for layer in layers])
    lowest = layers[0]
    if _fills(lowest, height, width):
        background, layers = lowest.image, layers[1:]
    else:
        background = lowest.image.new_zeros(1, 1, 1, 4).expand(1, height, width, 4)
    result = torch.empty(count, rows, width, background.shape[-1], device=background.device)
    # ComfyUI composites on the processor as a rule: strips and planes take two fifths of the textbook time there (docs/benchmarks.md).
    strip = max(1, STRIP_PIXELS // (count * width)) if result.device.type == "cpu" else rows
    for first in range(0, rows, strip):
        part = result[:, first : first + strip]
        start = top + first
        canvas = _planes(background[:, start : start + part.shape[1]].float().expand_as(part))
        if blending == EDITOR:
            canvas[..., :3] = to_linear(canvas[..., :3].clamp(0.0, 1.0))
        for layer in layers:
            paint(canvas, layer, start, blending)
        if blending == EDITOR:
            canvas[..., :3] = to_srgb(canvas[..., :3].clamp(0.0, 1.0))
        part.copy_(canvas)
    return result


def _planes(picture: Tensor) -> Tensor:
    """A copy that is stored channel by channel: three or four values at a time are too few for a processor's vector units."""
    return picture.movedim(-1, 1).clone(memory_format=torch.contiguous_format).movedim(1, -1)


def _fills(layer: Layer, height: int, width: int) -> bool:
    return (
        layer.visible
        and layer.mode == NORMAL
        and layer.opacity == 1.0
        and (layer.x, layer.y, *layer.image.shape[1:3]) == (0, 0, height, width)
    )


def paint(canvas: Tensor, layer: Layer, top: int = 0, blending: str = PHOTOSHOP) -> None:
    """Put a layer on the canvas [B, rows, W, 3 or 4], in place. top: the row of the picture that the canvas begins with.

    For the blending of ComfyUI's editor the canvas is in linear light.
    """
    if not layer.visible:
        return
    x, y = layer.x, layer.y - top
    first_row, last_row = inside(y, layer.image.shape[1], canvas.shape[1])
    first_column, last_column = inside(x, layer.image.shape[2], canvas.shape[2])
    if first_row >= last_row or first_column >= last_column:
        return
    source = _planes(layer.image[:, first_row:last_row, first_column:last_column].to(canvas))
    part = canvas[:, first_row + y : last_row + y, first_column + x : last_column + x]
    if blending == EDITOR:
        source[..., :3] = to_linear(source[..., :3].clamp(0.0, 1.0))
    put = _blend_inside if blending == EDITOR and layer.mode != NORMAL else _put_over
    put(part, source, layer.mode, layer.opacity)


def inside(offset: int, length: int, canvas: int) -> tuple[int, int]:
    """The part of a layer that is on the canvas, along one side: (from, to); empty unless from < to."""
    return max(0, -offset), min(length, canvas - offset)


def common_batch(pictures: Sequence[Tensor]) -> int:
    """The number of pictures of several batches put together: single ones are repeated. Raises DiaphaneError if the others differ."""
    counts = {len(picture) for picture in pictures}
    if len(counts - {1}) > 1:
        raise DiaphaneError(
            f"Got batches of {' and '.join(map(str, sorted(counts)))} pictures for the layers of one composition. "
            "Connect batches of one size; a single picture is used for all."
        )
    return max(counts, default=1)
