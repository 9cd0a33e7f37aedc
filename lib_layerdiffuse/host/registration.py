"""Node ids that another pack may have, and what the host is told about ids that have a successor."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from comfy_api.latest import ComfyAPI, io
from server import PromptServer

logger = logging.getLogger("diaphane")


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
