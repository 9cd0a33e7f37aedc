"""Diaphane: transparent images and image layers straight from the diffusion model (LayerDiffuse), as nodes for ComfyUI."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .lib_layerdiffuse.comfyui.models.weight_files import register_folder
from .lib_layerdiffuse.comfyui.registration import check_version, installed_before, register_replacements, unclaimed
from .nodes import NODES, legacy

WEB_DIRECTORY = "./web"


class Diaphane(ComfyExtension):
    async def on_load(self) -> None:
        check_version()
        register_folder()
        await register_replacements(legacy.REPLACEMENTS)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [] if installed_before(NODES) else [*NODES, *unclaimed(legacy.NODES)]


async def comfy_entrypoint() -> Diaphane:
    return Diaphane()
