"""What PNG files hold beside pixels, as ComfyUI writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from PIL.PngImagePlugin import PngInfo

COMPRESS_LEVEL = 4
LONGEST_KEY = 79


def text_chunks(metadata: Mapping[str, str]) -> PngInfo:
    """The metadata where ComfyUI's frontend reads it."""
    chunks = PngInfo()
    for key, text in metadata.items():
        # A workflow may have any key; the format allows 79 printable Latin characters.
        chunks.add_text(re.sub(r"[^ -~]", "_", key)[:LONGEST_KEY] or "_", text)
    return chunks
