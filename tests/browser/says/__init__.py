"""A node that says what its widget holds, one line each, as the pack's own nodes do when they have found something."""

from __future__ import annotations

from typing import Any


class Says:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "say"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",), "text": ("STRING", {"multiline": True})}}

    def say(self, image: Any, text: str) -> dict[str, Any]:
        return {"ui": {"text": text.splitlines()}, "result": (image,)}


NODE_CLASS_MAPPINGS = {"DiaphaneSays": Says}
