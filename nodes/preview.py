"""Preview Transparent."""

from __future__ import annotations

from comfy_api.latest import io, ui
from torch import Tensor

from ..lib_layerdiffuse.comfyui.messages import notes
from ..lib_layerdiffuse.pixels.backdrop import BACKDROPS, CHECKERBOARD, over_backdrop
from ..lib_layerdiffuse.pixels.coverage import coverage
from ..lib_layerdiffuse.pixels.straight import with_alpha
from . import hints, inputs


class PreviewTransparent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphanePreview",
            display_name="Preview Transparent",
            category=inputs.CATEGORY,
            description="Shows a transparent picture on a checkerboard or a colour, and says how much of it is transparent.",
            search_aliases=[*inputs.ALIASES, "checkerboard", "checker", "coverage", "show alpha"],
            inputs=[
                io.Image.Input("image", tooltip="Picture with alpha [B, H, W, 4], straight. Without alpha, connect a mask."),
                inputs.mask(),
                io.Combo.Input("backdrop", options=list(BACKDROPS), default=CHECKERBOARD, tooltip="What lies behind the picture."),
                io.Int.Input(
                    "cell", default=32, min=4, max=512, step=4, advanced=True, tooltip="Side of the checkerboard's cells in pixels."
                ),
            ],
            outputs=[io.Image.Output(display_name="preview", tooltip="The opaque picture that is shown [B, H, W, 3].")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, image: Tensor, backdrop: str, cell: int, mask: Tensor | None = None) -> io.NodeOutput:
        rgba = with_alpha(image, mask)
        preview = over_backdrop(rgba, backdrop, cell)
        shown = ui.PreviewImage(preview, cls=cls).as_dict()
        said = " ".join([f"{coverage(rgba)}.", *hints.on_opaque(rgba, mask)])
        return io.NodeOutput(preview, ui=shown | notes(said))


NODES = [PreviewTransparent]
