"""Layers and pictures to files that other programs open, and from them: PSD, OpenRaster, PNG. No ComfyUI."""
