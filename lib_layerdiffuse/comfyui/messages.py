"""What a node says to the user, in the log and under the node."""

from __future__ import annotations

import logging

logger = logging.getLogger("diaphane")


def notes(*texts: str) -> dict[str, list[str]]:
    """Log the texts and give them back as a node's `ui`, from which the frontend shows them under the node (web/notes.js).

    A node that may have notes returns them after every run, even if there are none: an empty list removes those of the last run. For a
    list ComfyUI runs a node once for each entry and joins the notes. `text` is ComfyUI's key for text beside the outputs.
    """
    for text in texts:
        logger.info("%s", text)
    return {"text": [*texts]}


def counted(count: int, thing: str) -> str:
    """1 layer, 2 layers"""
    return f"{count} {thing}{'' if count == 1 else 's'}"
