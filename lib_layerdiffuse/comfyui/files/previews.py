"""Pictures under nodes: layers so far, small, with frames around what is new; transparent pictures in full size."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image, ImageDraw
from torch import Tensor

from ...documents.bytes import to_bytes
from ...pixels.backdrop import over_backdrop
from ...pixels.boxes import Box
from ...pixels.composite import PHOTOSHOP, Layers
from ...pixels.layer_stack import thinned, whereabouts
from ...pixels.straight import with_alpha

logger = logging.getLogger("diaphane")

SIDE = 512
CELL = 16  # pixels; side of the checkerboard's cells


def preview(layers: Layers, above: int, blending: str = PHOTOSHOP) -> dict[str, Any]:
    """A node's `ui`: the first picture of the batch on a checkerboard, the layers from number `above` on in frames. Nothing if it fails."""
    try:
        small = thinned(layers.one(0), -(-max(layers.height, layers.width) // SIDE))
        image = Image.fromarray(to_bytes(over_backdrop(with_alpha(small.flatten(blending=blending)), cell=CELL)[0]))
        for name, box, outside in whereabouts(small, above):
            if min(box.width, box.height) > 0:  # what is thinner than a pixel of the preview is not in it
                _frame(ImageDraw.Draw(image), f"{name} ({outside:.0%} outside)" if outside else name, box)
        return ui.PreviewImage(torch.from_numpy(np.asarray(image) / np.float32(255))[None]).as_dict()
    except Exception:  # whatever it is, the layers are right
        logger.warning("There is no preview of the layers.", exc_info=True)
        return {}


def preview_pictures(batches: Sequence[Tensor], node: type[io.ComfyNode]) -> dict[str, Any]:
    """A node's `ui`: pictures [B, H, W, 4] on a checkerboard, which hold the workflow."""
    shown = [ui.PreviewImage(over_backdrop(rgba, cell=CELL), cls=node).as_dict()["images"] for rgba in batches]
    return {"images": [picture for some in shown for picture in some]}


def _frame(draw: ImageDraw.ImageDraw, text: str, box: Box) -> None:
    """A white line inside a black one, to be seen on anything."""
    left, top = box.x, box.y
    draw.rectangle((left - 1, top - 1, left + box.width, top + box.height), outline="black")
    draw.rectangle((left, top, left + box.width - 1, top + box.height - 1), outline="white")
    # Pillow's own font has no other letters.
    latin = text.encode("latin-1", "replace").decode("latin-1")
    _, _, right, bottom = draw.textbbox((0, 0), latin)
    width, height = draw.im.size
    # Inside the frame, and inside the picture even if the frame is not.
    corner = max(0, min(left + 3, width - right - 1)), max(0, min(top + 2, height - bottom - 1))
    draw.rectangle(draw.textbbox(corner, latin), fill="black", outline="black")
    draw.text(corner, latin, fill="white")
