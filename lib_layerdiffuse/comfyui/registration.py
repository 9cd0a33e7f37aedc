"""What the pack and ComfyUI tell each other when it is loaded: versions, ids that another pack may have, ids that have a successor."""

from __future__ import annotations

import importlib
import inspect
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import comfyui_version
from comfy_api.latest import ComfyAPI, io
from server import PromptServer

logger = logging.getLogger("diaphane")

# As in pyproject.toml. Tests run on this version, too.
OLDEST_COMFYUI = "0.18.2"
OTHERS = "Another pack has the nodes %s: its own are used."


def check_version() -> None:
    """Warn if ComfyUI is older than any version that the pack is tested with; it may lack what nodes need."""
    present = _numbers(comfyui_version.__version__)
    if present and present < _numbers(OLDEST_COMFYUI):
        logger.warning("Diaphane needs ComfyUI %s or newer, this is %s. Update ComfyUI.", OLDEST_COMFYUI, comfyui_version.__version__)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def installed_before(nodes: Sequence[type[io.ComfyNode]]) -> bool:
    """Whether another copy of this pack has registered these nodes. A warning says which copy is used."""
    first = _registered().get(nodes[0].GET_SCHEMA().node_id)
    if first is None or first is nodes[0]:
        return False
    logger.warning(
        "Diaphane is installed twice: the nodes of %s are used, those of %s are not. Remove one of the two folders.",
        _folder_of(first),
        _folder_of(nodes[0]),
    )
    return True


def _registered() -> Mapping[str, Any]:
    # ComfyUI's own module: this repository has a folder of that name.
    return importlib.import_module("nodes").NODE_CLASS_MAPPINGS


def _folder_of(node: type) -> Path:
    """The folder of the pack that a node comes from."""
    return Path(inspect.getfile(node)).parents[1]


def unclaimed(nodes: Iterable[type[io.ComfyNode]]) -> list[type[io.ComfyNode]]:
    """Those of `nodes` whose ids no pack has registered yet.

    A pack that is loaded later replaces ours: ComfyUI keeps the last one. Once all are loaded, the log says so.
    """
    registered = _registered()
    by_id = {node.GET_SCHEMA().node_id: node for node in nodes}
    if taken := [node_id for node_id in by_id if node_id in registered]:
        logger.info(OTHERS, ", ".join(taken))
    ours = {node_id: node for node_id, node in by_id.items() if node_id not in registered}

    async def look_again(_: object) -> None:
        if taken := [node_id for node_id, node in ours.items() if registered.get(node_id) is not node]:
            logger.info(OTHERS, ", ".join(taken))

    app = getattr(getattr(PromptServer, "instance", None), "app", None)
    if app is not None:
        app.on_startup.append(look_again)
    return list(ours.values())


async def register_replacements(replacements: Sequence[Mapping[str, Any]]) -> None:
    """Tell ComfyUI which nodes may replace missing ones. replacements: arguments of `io.NodeReplace`.

    Does nothing where ComfyUI is too old to know of replacements.
    """
    replacement = getattr(io, "NodeReplace", None)
    registry = getattr(ComfyAPI(), "node_replacement", None)
    if replacement is None or registry is None or getattr(PromptServer, "instance", None) is None:
        return
    for arguments in replacements:
        await registry.register(replacement(**arguments))
