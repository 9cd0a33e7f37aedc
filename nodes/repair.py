"""Repair Alpha."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..lib_layerdiffuse.pixels import repair
from ..lib_layerdiffuse.pixels.coverage import NOTHING
from ..lib_layerdiffuse.pixels.straight import with_alpha
from . import inputs


class RepairAlpha(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneRepair",
            display_name="Repair Alpha",
            category=inputs.CATEGORY,
            description="Takes fringes off the edges, cleans faint or nearly opaque parts, keeps what lies in an area, and cuts off the "
            "transparent border.",
            search_aliases=[
                *inputs.ALIASES,
                "defringe",
                "decontaminate",
                "halo",
                "levels",
                "trim",
                "crop",
                "bounding box",
                "sprite",
                "matte",
                "matting",
                "hair",
                "garbage matte",
            ],
            inputs=[
                io.Image.Input("image", tooltip="Picture with alpha [B, H, W, 4], straight. Without alpha, connect a mask."),
                inputs.mask(),
                io.Int.Input(
                    "defringe",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="Width of the fringe in pixels. Its colour is taken from further in. 0: off.",
                ),
                io.Float.Input("black", default=0.0, min=0.0, max=1.0, step=0.01, tooltip="Alpha up to here becomes 0: removes haze."),
                io.Float.Input("white", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="Alpha from here on becomes 1: closes holes."),
                io.Float.Input(
                    "gamma",
                    default=1.0,
                    min=0.1,
                    max=10.0,
                    step=0.05,
                    advanced=True,
                    tooltip="Above 1 makes half-transparent parts more opaque, below 1 more transparent.",
                ),
                io.Boolean.Input(
                    "trim",
                    default=False,
                    tooltip="Cut off the border in which nothing can be seen. A batch is cut to the box that holds all its pictures.",
                ),
                io.Int.Input("margin", default=0, min=0, max=1024, advanced=True, tooltip="Pixels that trim leaves around the object."),
                io.Mask.Input(
                    "area",
                    optional=True,
                    tooltip="1 = keep what is here, as painted in Painter or a mask editor, not 1 = transparent. Alpha outside becomes 0; "
                    "soft edges stay soft. Resized to the picture.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="rgba", tooltip="The repaired picture, straight alpha [B, h, w, 4]."),
                io.Int.Output(display_name="x", tooltip="Where its left edge lay: for x of Place Layer. 0 unless trimmed."),
                io.Int.Output(display_name="y", tooltip="Where its top edge lay: for y of Place Layer. 0 unless trimmed."),
            ],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        defringe: int,
        black: float,
        white: float,
        gamma: float,
        trim: bool,
        margin: int,
        mask: Tensor | None = None,
        area: Tensor | None = None,
    ) -> io.NodeOutput:
        rgba = repair.alpha_levels(repair.defringe(with_alpha(image, mask), defringe), black, white, gamma)
        if area is not None:  # after the levels, which would harden its edge
            rgba = repair.keep_area(rgba, area)
        if not trim:
            return io.NodeOutput(rgba, 0, 0)
        # Estimated alpha is seldom exactly 0. Where `black` says what is haze, all that it leaves counts.
        return io.NodeOutput(*repair.trim(rgba, margin, repair.INVISIBLE if black > 0.0 else NOTHING))


NODES = [RepairAlpha]
