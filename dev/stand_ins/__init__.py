"""Stand-ins: small models with made-up weights, offered as ComfyUI loader nodes.

The bundled workflows run with them in a live ComfyUI that has no checkpoints. A custom node
pack of its own, for development only: link this folder into `custom_nodes/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension


async def comfy_entrypoint() -> ComfyExtension:
    # Imported late: shapes.py, weights.py and swap.py are also used where there is no ComfyUI.
    from .nodes import StandIns

    return StandIns()
