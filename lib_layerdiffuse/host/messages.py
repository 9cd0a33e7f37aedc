"""Short notes to the artist: in the log and on the node."""

from __future__ import annotations

import logging

from server import PromptServer

logger = logging.getLogger("diaphane")


def tell(text: str, node_id: str | None) -> None:
    """Write `text` to the log and, where a frontend is connected, under the node."""
    logger.info("%s", text)
    server = getattr(PromptServer, "instance", None)
    if node_id is not None and server is not None:
        server.send_progress_text(text, node_id)
