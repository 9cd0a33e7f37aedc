"""Save Sprite Sheet."""

from __future__ import annotations

from collections.abc import Sequence

from comfy_api.latest import io
from torch import Tensor

from ..lib_layerdiffuse.comfyui.files.output_files import paths, workflow_metadata
from ..lib_layerdiffuse.comfyui.files.save_sprites import save_sheet
from ..lib_layerdiffuse.comfyui.messages import counted, notes
from ..lib_layerdiffuse.documents.sheet import GRID, LAYOUTS, PACKED, arrange, as_sprite
from ..lib_layerdiffuse.pixels.straight import with_alpha
from . import inputs


class SaveSheet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiaphaneSaveSheet",
            display_name="Save Sprite Sheet",
            category=inputs.CATEGORY,
            description="Saves pictures side by side as one PNG, with a JSON atlas beside it that says where each is. Phaser, PixiJS and "
            "importers for Godot read it.",
            search_aliases=[
                *inputs.ALIASES,
                "sprite",
                "spritesheet",
                "atlas",
                "texture atlas",
                "texture packer",
                "pack",
                "game asset",
                "Phaser",
                "PixiJS",
                "Godot",
                "contact sheet",
                "export",
            ],
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="The sprites: RGBA with straight alpha, a batch, or a list of pictures of any sizes."),
                inputs.filename_prefix("sheet"),
                io.Combo.Input(
                    "layout",
                    options=list(LAYOUTS),
                    default=GRID,
                    tooltip="grid: equal cells in the order of the pictures, each in the middle of its own. packed: as little room as "
                    "possible; only the atlas says what lies where.",
                ),
                io.Int.Input("columns", default=0, min=0, max=1024, tooltip="Of a grid. 0: about square."),
                io.Int.Input("padding", default=2, min=0, max=256, tooltip="Transparent pixels between the sprites and at the border."),
                io.Boolean.Input(
                    "trim",
                    default=True,
                    tooltip="packed: cut each sprite to what can be seen of it. The atlas keeps its place in the whole picture.",
                ),
                io.Boolean.Input("power_of_two", default=False, tooltip="Sides of 256, 512, 1024 … pixels, for older graphics chips."),
                io.Boolean.Input(
                    "bleed",
                    default=True,
                    advanced=True,
                    tooltip="Carry colour under transparent pixels, so that edges get no dark fringe where an engine scales the sprites.",
                ),
                io.String.Input(
                    "names",
                    default="",
                    multiline=True,
                    tooltip="Names of the sprites in the atlas, one a line, or a list of prompts connected here. Without a name: "
                    "filename_prefix and number.",
                ),
            ],
            outputs=[io.Image.Output(display_name="sheet", tooltip="The sheet as it is saved [1, H, W, 4], straight alpha.")],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        images: Sequence[Tensor],
        filename_prefix: Sequence[str],
        layout: Sequence[str],
        columns: Sequence[int],
        padding: Sequence[int],
        trim: Sequence[bool],
        power_of_two: Sequence[bool],
        bleed: Sequence[bool],
        names: Sequence[str],
    ) -> io.NodeOutput:
        pictures = [picture for batch in images for picture in with_alpha(batch).cpu().split(1)]
        sprites = [as_sprite(picture, trimmed=layout[0] == PACKED and trim[0]) for picture in pictures]
        sizes = [(one.image.shape[1], one.image.shape[0]) for one in sprites]
        sheet = arrange(sizes, layout[0], columns[0], padding[0], power_of_two[0])
        lines = names[0].splitlines() if len(names) == 1 else names
        metadata = workflow_metadata(cls.hidden.prompt, cls.hidden.extra_pnginfo)
        pixels, files = save_sheet(sprites, sheet, padding[0], bleed[0], lines, filename_prefix[0], metadata)
        said = f"{counted(len(sprites), 'sprite')} on a sheet of {sheet.width}x{sheet.height}: {paths(files)}."
        return io.NodeOutput(pixels[None], ui={"images": files[:1]} | notes(said))


NODES = [SaveSheet]
