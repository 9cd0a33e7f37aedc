"""ComfyUI's folders: pictures and documents from input, files to output, what a node shows from temp."""
