"""Save Animation."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..lib_layerdiffuse.comfyui.files.output_files import paths, workflow_metadata
from ..lib_layerdiffuse.comfyui.files.save_sprites import save_animation
from ..lib_layerdiffuse.comfyui.messages import counted, notes
from ..lib_layerdiffuse.documents.animation import LOSSLESS, SUFFIXES, WEBM, WEBP
from ..lib_layerdiffuse.pixels.straight import with_alpha
from . import hints, inputs


class SaveAnimation(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneSaveAnimation",
            display_name="Save Animation",
            category=inputs.CATEGORY,
            description="Saves a batch of transparent pictures as one moving picture with alpha: APNG, animated WebP, or WebM.",
            search_aliases=[
                *inputs.ALIASES,
                "animated",
                "APNG",
                "WebP",
                "WebM",
                "GIF",
                "VP9",
                "video",
                "film",
                "frames",
                "fps",
                "sticker",
                "export",
            ],
            inputs=[
                io.Image.Input("images", tooltip="The frames: a batch of RGBA [B, H, W, 4] with straight alpha."),
                inputs.filename_prefix("animation"),
                io.Combo.Input(
                    "format",
                    options=list(SUFFIXES),
                    default=WEBP,
                    tooltip="WebP: small, for browsers and messengers. APNG: lossless, opens as any PNG. WebM: a film with alpha (VP9).",
                ),
                io.Float.Input("fps", default=12.0, min=1.0, max=120.0, step=0.5, tooltip="Frames per second."),
                io.Int.Input("loop", default=0, min=0, max=1000, tooltip="How often it plays. 0: for ever. WebM does not hold it."),
                io.Int.Input(
                    "quality",
                    default=LOSSLESS,
                    min=0,
                    max=LOSSLESS,
                    tooltip="100: lossless, but WebM has colour at half the size. 80: much smaller files. No effect on APNG.",
                ),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, images: Tensor, filename_prefix: str, format: str, fps: float, loop: int, quality: int) -> io.NodeOutput:
        rgba = with_alpha(images)
        metadata = workflow_metadata(cls.hidden.prompt, cls.hidden.extra_pnginfo)
        file = save_animation(rgba, format, filename_prefix, fps, loop, quality, metadata)
        said = f"{counted(len(rgba), 'frame')}, {len(rgba) / fps:.3g} s: {paths([file])}."
        if len(rgba) == 1:
            said += " For more of them connect a batch: a list is saved picture by picture."
        shown = {"images": [file], "animated": (len(rgba) > 1 or format == WEBM,)}
        return io.NodeOutput(ui=shown | notes(said, *hints.on_opaque(rgba, None)))


NODES = [SaveAnimation]
