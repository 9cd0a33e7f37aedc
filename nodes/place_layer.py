"""Place Layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..lib_layerdiffuse.comfyui.files.previews import preview
from ..lib_layerdiffuse.comfyui.messages import notes
from ..lib_layerdiffuse.pixels.blend import BLENDS, NORMAL
from ..lib_layerdiffuse.pixels.boxes import LARGEST, boxes_given, each_in_its_box
from ..lib_layerdiffuse.pixels.composite import Layer, Layers
from ..lib_layerdiffuse.pixels.layer_stack import as_layers, whereabouts
from ..lib_layerdiffuse.pixels.place import (
    ANCHORS,
    CONTAIN,
    FLIPS,
    NO_FLIP,
    OBJECT_FITS,
    TOP_LEFT,
    fit_object,
    place,
    place_object,
)
from ..lib_layerdiffuse.pixels.straight import check_picture, with_alpha
from . import hints, inputs

OBJECT, PICTURE = "object", "picture"  # web/place_layer.js knows them too
PIXELS, PER_CENT = "pixels", "per cent"


class PlaceLayer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphanePlaceLayer",
            display_name="Place Layer",
            category=inputs.CATEGORY,
            description="Puts the visible object of a picture where it is to lie in a composition, and says how it lies there: name, "
            "blend mode, opacity, position, size and rotation.",
            search_aliases=[
                *inputs.ALIASES,
                "layer",
                "blend mode",
                "opacity",
                "move",
                "move layer",
                "position",
                "transform",
                "offset",
                "rotate",
                "scale",
                "align",
                "anchor",
                "flip",
                "mirror",
                "fit in box",
                "bounding box",
            ],
            inputs=[
                io.Image.Input("image", tooltip="The layer: RGBA [B, H, W, 4] with straight alpha, or RGB. Any size."),
                inputs.mask(),
                io.String.Input("name", default="", tooltip="The layer's name in saved files. Empty: its number."),
                io.Combo.Input("mode", options=list(BLENDS), default=NORMAL, tooltip="How its colour mixes with what lies below."),
                io.Float.Input("opacity", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="0 = invisible, 1 = as it is."),
                io.Int.Input(
                    "x", default=0, min=-LARGEST, max=LARGEST, tooltip="How far to the right of the canvas's left edge the anchor lies."
                ),
                io.Int.Input("y", default=0, min=-LARGEST, max=LARGEST, tooltip="How far below the canvas's top edge the anchor lies."),
                io.Float.Input(
                    "scale", default=1.0, min=0.01, max=16.0, step=0.01, tooltip="Size. The anchor stays where it is. 1 = as it is."
                ),
                io.Float.Input(
                    "rotation", default=0.0, min=-360.0, max=360.0, step=0.5, advanced=True, tooltip="Degrees clockwise, after flip."
                ),
                # Saved workflows give the widgets above by their order, and prompts lack those below: they go by the whole picture then.
                io.Combo.Input(
                    "moves",
                    options=[OBJECT, PICTURE],
                    default=OBJECT,
                    optional=True,
                    tooltip="object: x, y and scale are those of what can be seen. picture: x and y move the whole picture from the "
                    "canvas's corner, transparent parts included, and it is scaled and turned about its centre.",
                ),
                io.Combo.Input(
                    "anchor", options=list(ANCHORS), default=TOP_LEFT, optional=True, tooltip="The point of the object that lies at x, y."
                ),
                io.Combo.Input(
                    "unit", options=[PIXELS, PER_CENT], default=PIXELS, optional=True, tooltip="Of x and y. 100 per cent is the canvas."
                ),
                io.Combo.Input(
                    "flip",
                    options=list(FLIPS),
                    default=NO_FLIP,
                    optional=True,
                    advanced=True,
                    tooltip="Mirror it: horizontal = left to right.",
                ),
                io.Combo.Input(
                    "fit",
                    options=list(OBJECT_FITS),
                    default=CONTAIN,
                    optional=True,
                    tooltip="How the object meets box or into: contain shows all of it in the middle, bottom-aligned on the "
                    "lower edge, cover leaves no part of the box empty, stretch distorts it.",
                ),
                io.Int.Input(
                    "box_number",
                    default=0,
                    min=0,
                    max=1000,
                    optional=True,
                    advanced=True,
                    tooltip="Which of several boxes: 1 is the first. 0: the first, or for a batch of pictures each its own, as layers.",
                ),
                io.MultiType.Input(
                    "canvas",
                    types=inputs.PICTURES_AND_LAYERS,
                    optional=True,
                    tooltip="What lies below: a picture or the layers so far. It gives the size and is shown in the preview; it is not "
                    "part of the layer. Without it the canvas is as large as the picture.",
                ),
                io.BoundingBox.Input(
                    "box",
                    optional=True,
                    force_input=True,
                    tooltip="Fit the object in here: bboxes of Create Bounding Boxes, in pixels of the canvas. x, y, scale and anchor do "
                    "not count then.",
                ),
                io.Mask.Input(
                    "into",
                    optional=True,
                    tooltip="Fit the object into the extent of this: 1 = here, as Painter gives it, not 1 = transparent. x, y, scale and "
                    "anchor do not count then.",
                ),
            ],
            outputs=[inputs.LAYERS.Output(display_name="layer", tooltip="For Composite Layers or Save Layers.")],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        name: str,
        mode: str,
        opacity: float,
        x: int,
        y: int,
        scale: float,
        rotation: float,
        mask: Tensor | None = None,
        moves: str = PICTURE,
        anchor: str = TOP_LEFT,
        unit: str = PIXELS,
        flip: str = NO_FLIP,
        fit: str = CONTAIN,
        box_number: int = 0,
        canvas: Tensor | Layers | None = None,
        box: Any = None,
        into: Tensor | None = None,
    ) -> io.NodeOutput:
        check_picture(image)
        if mask is not None or image.shape[-1] != 3:
            image = with_alpha(image, mask)
        below = None if canvas is None else as_layers(canvas)
        height, width = image.shape[1:3] if below is None else (below.height, below.width)
        boxes = boxes_given(box, into, height, width)
        if unit == PER_CENT:
            x, y = round(x * width / 100), round(y * height / 100)
        flipped = image if flip == NO_FLIP else image.flip(FLIPS[flip])
        if boxes is not None:
            placed = [fit_object(*pair, fit, rotation) for pair in each_in_its_box(flipped, boxes, box_number)]
        elif moves == OBJECT:
            placed = [place_object(flipped, x, y, anchor, scale, rotation)]
        else:
            picture, left, top = place(flipped, scale, rotation)
            placed = [(picture, x + left, y + top)]
        layers = [
            Layer(picture, f"{name} {number}" if name and len(placed) > 1 else name, mode, opacity, left, top)
            for number, (picture, left, top) in enumerate(placed, start=1)
        ]
        stack = Layers(height, width, tuple(layers))

        said = [hints.place_of(*found, known=below is not None) for found in whereabouts(stack)]
        if mode == NORMAL and opacity == 1.0:  # anything else is meant to lie over all of what is below
            said += hints.on_opaque(image, mask)
        lower = () if below is None else below.layers
        shown = preview(replace(stack, layers=lower + stack.layers), above=len(lower))
        return io.NodeOutput(stack, ui=shown | notes(" ".join(said)))


NODES = [PlaceLayer]
