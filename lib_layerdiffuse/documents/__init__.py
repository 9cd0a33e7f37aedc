"""Layers written to files that other programs open: PSD, OpenRaster, PNG. No ComfyUI."""
