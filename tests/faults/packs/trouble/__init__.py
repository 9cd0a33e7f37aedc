"""Trouble on demand inside a server: a released file that the hub of the test can have, and a death in the midst of saving.

DIAPHANE_TEST_SHA256: what the released SDXL encoder's checksum is taken for. The file `die` in the base directory: the next layered
document kills the server when it is written and has not yet its name.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys

import folder_paths
from comfy_api.latest import ComfyExtension

NAME = "vae_transparent_encoder.safetensors"


def modules(name: str) -> list:
    return [module for key, module in sys.modules.items() if key.endswith(f".lib_layerdiffuse.{name}")]


class Trouble(ComfyExtension):
    async def get_node_list(self) -> list:
        return []


async def comfy_entrypoint() -> ComfyExtension:
    digest = os.environ.get("DIAPHANE_TEST_SHA256")
    for catalogue in modules("weights.catalogue") if digest else []:
        catalogue.CATALOGUE = tuple(
            dataclasses.replace(file, repo="some/repo", revision="abc", size=None, sha256=digest) if file.name == NAME else file
            for file in catalogue.CATALOGUE
        )
    for files in modules("comfyui.files.output_files"):
        files.os = Dying(files.os)
    return Trouble()


class Dying:
    """The module os, but that a file may be the server's last."""

    def __init__(self, real) -> None:
        self.real = real

    def __getattr__(self, name: str):
        return getattr(self.real, name)

    def replace(self, source, target) -> None:
        if self.real.path.exists(self.real.path.join(folder_paths.base_path, "die")):
            self.real.kill(self.real.getpid(), signal.SIGKILL)
        self.real.replace(source, target)
