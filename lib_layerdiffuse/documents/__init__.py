"""Layers, frames and pictures to and from files of other programs: PSD, OpenRaster, PNG, sprite sheets, animations. No ComfyUI."""
