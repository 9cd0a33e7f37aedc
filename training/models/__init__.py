"""The networks that are trained, or trained against, in plain torch, with ComfyUI's key names."""
