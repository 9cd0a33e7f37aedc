"""What a file looks like, for the end of an error message."""

from __future__ import annotations

import re
from collections.abc import Iterable

# The first pattern that one of the keys matches decides: a checkpoint contains a VAE, and a TransparentVAE both networks.
_LOOKS = (
    (r"decoder\.latent_conv_in\.weight", "a TransparentVAE (transparency decoder and offset encoder)"),
    (r"latent_conv_in\.weight", "a transparency decoder"),
    (r"(encoder\.)?blocks\.\d+\.weight", "an offset encoder"),
    (r"diffusion_model\.input_blocks\.0\.0\.weight::diff::0", "an SDXL delta file (that changes the first convolution)"),
    (r".+::(lora|diff)::\d", "an SDXL delta file (attention, transparent image)"),
    (r"hookers\.layers\.\d+\.to_q_lora\.2\..*", "SD1.5 attention sharing of 3 layers (joint)"),
    (r"mask_head\..*", "attention sharing of 2 layers beside a given one and an area (a trained brush)"),
    (r"kwargs_encoder\..*", "SD1.5 attention sharing of 2 layers beside a given one"),
    (r"hookers\.layers\..*", "SD1.5 attention sharing of 1 layer (transparent image)"),
    (r".*\.lora_.*", "a LoRA (for ComfyUI's own Load LoRA node)"),
    (r"model\.diffusion_model\..*", "a whole checkpoint"),
    (r"(diffusion_model\.)?input_blocks\..*|time_embedding\..*", "a UNet"),
    (r"(.*\.)?double_blocks\..*", "a Flux model"),
    (r"((first_stage_model|vae)\.)?decoder\.conv_in\.weight", "a VAE"),
)


def looks_like(keys: Iterable[str]) -> str:
    """A sentence about the file whose state dict has these keys."""
    names = list(keys)
    found = next((what for pattern, what in _LOOKS if any(re.fullmatch(pattern, name) for name in names)), None)
    return f"It looks like {found}." if found else "It is no kind of file that Diaphane knows."
