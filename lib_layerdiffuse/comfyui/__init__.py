"""LayerDiffuse inside ComfyUI: the only place that imports comfy."""
