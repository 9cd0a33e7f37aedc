"""What a file is, told from its keys and shapes alone.

Key structure decides, never widths or ranks, so that narrow stand-ins are recognised like the released files. Only latent
and input channels are looked at, because that is how the families differ. Sources: docs/facts.md sections 1, 2, 3, 4 and 6.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Shapes = dict[str, tuple[int, ...]]

_LATENTS = {4: "SD1.5 or SDXL", 16: "Flux"}
_SHARING = {
    (1, False): "1 frame (transparent image)",
    (3, False): "3 frames (joint layers)",
    (2, True): "2 frames and control (one layer -> the other layer + blended)",
}
_DELTAS = {  # (input channels, does the file reach the transformer blocks) -> what for
    (8, False): "8 input channels (foreground or background -> blended)",
    (12, False): "12 input channels (foreground + blended -> background)",
    (12, True): "12 input channels (background + blended -> foreground)",
}
_FLUX_LORA = re.compile(r"(^|[._])(double_blocks|single_blocks|single_transformer_blocks)[._]|^transformer\.transformer_blocks\.")


def identify(shapes: Mapping[str, Any]) -> str | None:
    """What a state dict or `{key: shape}` table holds, with its article, or None for a stranger.

    For instance "an SD1.5 or SDXL transparency decoder" or "an SDXL checkpoint".
    """
    table = {key: tuple(getattr(value, "shape", value)) for key, value in shapes.items()}
    return next((found for recognise in _RECOGNISERS if (found := recognise(table))), None)


def looks_like(shapes: Mapping[str, Any]) -> str:
    """A sentence for the end of an error message."""
    found = identify(shapes)
    return f"It looks like {found}." if found else "It is no kind of file that Diaphane knows."


def _size(shape: tuple[int, ...], axis: int) -> int:
    return shape[axis] if len(shape) > axis else 0


def _article(text: str) -> str:
    return ("an " if text.startswith(("SD", "offset", "ordinary")) else "a ") + text


def _latents(channels: int, what: str) -> str:
    known = _LATENTS.get(channels)
    return _article(f"{known} {what}" if known else f"{what} with {channels} latent channels")


def _unet_family(shapes: Shapes) -> str:
    # SD1.5 has twelve input blocks with attention from the second on; SDXL has nine, with attention from the fifth on.
    return "SD1.5" if any("input_blocks.1.1." in key or "input_blocks.9." in key for key in shapes) else "SDXL"


def _transparent_vae(shapes: Shapes) -> str | None:
    if "decoder.latent_conv_in.weight" not in shapes:
        return None
    parts = "transparency decoder" + (" and offset encoder" if "encoder.blocks.0.weight" in shapes else "")
    return _latents(_size(shapes["decoder.latent_conv_in.weight"], 1), f"TransparentVAE ({parts})")


def _decoder(shapes: Shapes) -> str | None:
    first = shapes.get("latent_conv_in.weight")
    return None if first is None else _latents(_size(first, 1), "transparency decoder")


def _encoder(shapes: Shapes) -> str | None:
    convs: dict[int, int] = {}
    for key, shape in shapes.items():
        match = re.fullmatch(r"(?:encoder\.)?blocks\.(\d{1,9})\.(?:weight|bias)", key)
        if match is None:
            return None
        convs[int(match[1])] = _size(shape, 0)
    return _latents(convs[max(convs)], "offset encoder") if convs else None


def _deltas(shapes: Shapes) -> str | None:
    kinds = {key.split("::")[1] for key in shapes if key.count("::") == 2}
    if not kinds:
        return None
    family = _unet_family(shapes)
    if "diff" not in kinds:
        return f"an {family} attention LoRA delta file (transparent image)"
    channels = _size(shapes.get("diffusion_model.input_blocks.0.0.weight::diff::0", (0, 4)), 1)
    if channels == 4:
        return f"an {family} full delta file (conv, transparent image)"
    reaches = any(".transformer_blocks." in key for key in shapes)
    return f"an {family} delta file with {_DELTAS.get((channels, reaches), f'{channels} input channels')}"


def _sharing(shapes: Shapes) -> str | None:
    frames = {found[1] for key in shapes if (found := re.fullmatch(r"hookers\.layers\.\d+\.to_q_lora\.(\d+)\.down\.weight", key))}
    if not frames:
        return None
    control = any(key.startswith("kwargs_encoder.") for key in shapes)
    plain = f"{len(frames)} frame{'s' * (len(frames) > 1)}{' and control' * control}"
    return f"SD1.5 attention sharing with {_SHARING.get((len(frames), control), plain)}"


def _lora(shapes: Shapes) -> str | None:
    loras = [key for key in shapes if ".lora_" in key]
    if not loras:
        return None
    family = "a Flux" if any(_FLUX_LORA.search(key) for key in loras) else "an ordinary Stable Diffusion"
    return f"{family} LoRA (for ComfyUI's own Load LoRA node)"


def _model(shapes: Shapes) -> str | None:
    if "model.diffusion_model.input_blocks.0.0.weight" in shapes:
        return f"an ordinary {_unet_family(shapes)} checkpoint"
    if any(prefix + "input_blocks.0.0.weight" in shapes for prefix in ("", "diffusion_model.")):
        return f"an ordinary {_unet_family(shapes)} UNet"
    if any(".img_attn.qkv." in key and "double_blocks." in key for key in shapes):
        return "an ordinary Flux model"
    if "time_embedding.linear_1.weight" in shapes and "conv_in.weight" in shapes:
        return "an ordinary diffusers UNet"
    return None


def _vae(shapes: Shapes) -> str | None:
    for prefix in ("", "first_stage_model.", "vae."):
        first = shapes.get(f"{prefix}decoder.conv_in.weight")
        if first and f"{prefix}encoder.conv_in.weight" in shapes:
            family = _LATENTS.get(_size(first, 1))
            return f"an ordinary {family} VAE" if family else f"an ordinary VAE with {_size(first, 1)} latent channels"
    return None


# The order matters: a checkpoint contains a VAE, and a TransparentVAE both of its parts.
_RECOGNISERS: tuple[Callable[[Shapes], str | None], ...] = (
    _transparent_vae,
    _decoder,
    _encoder,
    _deltas,
    _sharing,
    _lora,
    _model,
    _vae,
)
