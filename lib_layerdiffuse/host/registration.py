"""What goes between the pack and the host when it is loaded: versions, ids that another pack may have, ids that have a successor."""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import comfyui_version
from comfy_api.latest import ComfyAPI, io
from server import PromptServer

logger = logging.getLogger("diaphane")

# As in pyproject.toml. Tests run on this version, too.
OLDEST_HOST = "0.18.2"


def check_host() -> None:
    """Say in the log if the host is older than any that the pack was tried with; it may lack what nodes need."""
    present = _numbers(comfyui_version.__version__)
    if present and present < _numbers(OLDEST_HOST):
        logger.warning("Diaphane needs ComfyUI %s or newer, this is %s. Update ComfyUI.", OLDEST_HOST, comfyui_version.__version__)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def unclaimed(nodes: Iterable[type[io.ComfyNode]]) -> list[type[io.ComfyNode]]:
    """Those of `nodes` whose ids no pack has registered yet.

    A pack that comes later takes its ids all the same: the host keeps the last one.
    """
    # ComfyUI's own module: this repository has a folder of that name.
    registered: Mapping[str, Any] = importlib.import_module("nodes").NODE_CLASS_MAPPINGS
    by_id = {node.GET_SCHEMA().node_id: node for node in nodes}
    if taken := [node_id for node_id in by_id if node_id in registered]:
        logger.info("Another pack has the nodes %s: its own are used.", ", ".join(taken))
    return [node for node_id, node in by_id.items() if node_id not in registered]


async def register_replacements(replacements: Sequence[Mapping[str, Any]]) -> None:
    """Tell the host which nodes may take the place of missing ones. replacements: arguments of `io.NodeReplace`.

    Hosts that know of no replacements are left as they are.
    """
    replacement = getattr(io, "NodeReplace", None)
    registry = getattr(ComfyAPI(), "node_replacement", None)
    if replacement is None or registry is None or getattr(PromptServer, "instance", None) is None:
        return
    for arguments in replacements:
        await registry.register(replacement(**arguments))
