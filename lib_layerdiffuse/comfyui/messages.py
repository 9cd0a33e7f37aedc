"""What a node has to say to the artist, in the log and under the node."""

from __future__ import annotations

import logging

logger = logging.getLogger("diaphane")


def notes(*texts: str) -> dict[str, list[str]]:
    """Log the texts and give them back as a node's `ui`, from which the frontend shows them under the node (web/notes.js).

    A node that may have something to say returns its notes after every run, none of them too: that takes the last run's away. Over a list
    the host runs a node once for each entry and joins what they say. `text` is the key that ComfyUI takes for words beside the outputs.
    """
    for text in texts:
        logger.info("%s", text)
    return {"text": [*texts]}
