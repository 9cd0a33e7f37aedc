"""The key grammar of the released files: deltas, attention sharing, transparency decoder and offset encoder.

Sources: docs/facts.md section 2 (deltas), 1, 3 and 4 (decoder and encoder), 6 (attention sharing). Every function raises
WeightsError for a file of another kind and says what the file looks like instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ..errors import WeightsError
from .identify import looks_like

LONGEST_SHOWN = 120  # characters of a key in a message


@dataclass(frozen=True)
class Delta:
    """What a file adds to one model key: up @ down, or diff, or both. `up` [out, rank], `down` [rank, in], `diff` as the weight."""

    key: str
    up: Tensor | None = None
    down: Tensor | None = None
    diff: Tensor | None = None


@dataclass(frozen=True)
class TransparencyParts:
    """Bare state dicts of the two networks, keyed as the networks name their own parameters; None where the file has none."""

    decoder: dict[str, Tensor] | None
    encoder: dict[str, Tensor] | None


def check_keys(found: Iterable[str], expected: Iterable[str], what: str) -> None:
    """Raise WeightsError unless `found` holds exactly the `expected` keys. Given a state dict, say what it looks like."""
    there, needed = dict.fromkeys(found), dict.fromkeys(expected)  # sets that keep the order
    missing = excerpt([key for key in needed if key not in there])
    unknown = excerpt([key for key in there if key not in needed])
    problems = [f"misses {missing}"] * bool(missing) + [f"has unknown {unknown}"] * bool(unknown)
    if problems:
        guess = f" {looks_like(found)}" if isinstance(found, Mapping) else ""
        raise WeightsError(f"This is not {what}: it {' and '.join(problems)}.{guess} Choose another file.")


def parse_deltas(state_dict: Mapping[str, Tensor]) -> dict[str, Delta]:
    """{model key: Delta} of a file with keys `MODEL_KEY::KIND::INDEX` (lora::0 up, lora::1 down, diff::0; docs/facts.md section 2)."""
    grouped: dict[str, dict[str, Tensor]] = {}
    strangers = []
    for key, value in state_dict.items():
        if match := re.fullmatch(r"(.+)::(lora::[01]|diff::0)", key):
            grouped.setdefault(match[1], {})[match[2]] = value
        else:
            strangers.append(key)
    if strangers or not grouped:
        named = f": it has {excerpt(strangers)}, not MODEL_KEY::lora::0, ::lora::1 or ::diff::0" if strangers else " but an empty one"
        raise WeightsError(f"This is not a LayerDiffuse delta file{named}. {looks_like(state_dict)} Choose another file.")

    halves = [f"{key}::lora::{1 - index}" for key, parts in grouped.items() for index in (0, 1) if _half(parts) == index]
    if halves:
        raise WeightsError(f"This delta file is incomplete: it misses {excerpt(halves)}. Download it again.")
    deltas = {key: Delta(key, parts.get("lora::0"), parts.get("lora::1"), parts.get("diff::0")) for key, parts in grouped.items()}
    for delta in deltas.values():
        _check_shapes(delta)
    return deltas


def transparency_parts(state_dict: Mapping[str, Tensor]) -> TransparencyParts:
    """Decoder and encoder of a released decoder file, encoder file or Flux TransparentVAE (whose `sd_vae.*` is dropped)."""
    rest = {key: value for key, value in state_dict.items() if not key.startswith("sd_vae.")}
    if "latent_conv_in.weight" in rest:
        return TransparencyParts(decoder=rest, encoder=None)
    if "blocks.0.weight" in rest:
        return TransparencyParts(decoder=None, encoder=rest)
    decoder, encoder = _under("decoder.", rest), _under("encoder.", rest)
    strangers = [key for key in rest if not key.startswith(("decoder.", "encoder."))]
    is_decoder, is_encoder = "latent_conv_in.weight" in decoder, "blocks.0.weight" in encoder
    if strangers or not (is_decoder or is_encoder) or (decoder and not is_decoder) or (encoder and not is_encoder):
        named = f": it has {excerpt(strangers)}" if strangers else ""
        raise WeightsError(f"This is no transparency decoder or offset encoder{named}. {looks_like(state_dict)} Choose another file.")
    return TransparencyParts(decoder=decoder or None, encoder=encoder or None)


def decoder_latent_channels(decoder: Mapping[str, Tensor]) -> int:
    """Latent channels that a bare decoder reads: 4, or 16 for Flux (docs/facts.md section 3)."""
    if "latent_conv_in.weight" not in decoder or not (channels := _size(decoder["latent_conv_in.weight"], 1)):
        raise WeightsError(f"This is not a transparency decoder. {looks_like(decoder)} Choose another file.")
    return channels


def encoder_latent_channels(encoder: Mapping[str, Tensor]) -> int:
    """Latent channels that a bare encoder gives: 4, or 16 for Flux (docs/facts.md section 4)."""
    convs = {int(match[1]): value for key, value in encoder.items() if (match := re.fullmatch(r"blocks\.(\d{1,9})\.weight", key))}
    if not convs or not (channels := _size(convs[max(convs)], 0)):
        raise WeightsError(f"This is not an offset encoder. {looks_like(encoder)} Choose another file.")
    return channels


def sharing_frames(state_dict: Mapping[str, Tensor]) -> int:
    """How many frames share attention: 1 (transparent), 2 (with control) or 3 (joint). Every layer must have the same."""
    pattern = re.compile(r"hookers\.layers\.(\d{1,9})\.to_q_lora\.(\d{1,9})\.down\.weight")
    frames: dict[int, set[int]] = {}
    for match in filter(None, map(pattern.fullmatch, state_dict)):
        frames.setdefault(int(match[1]), set()).add(int(match[2]))
    if not frames:
        raise WeightsError(f"This is not an SD1.5 attention sharing file. {looks_like(state_dict)} Choose another file.")
    count = max(map(len, frames.values()))
    uneven = [f"layer {layer}" for layer, there in frames.items() if there != set(range(count))]
    if uneven:
        raise WeightsError(f"This attention sharing file is incomplete: {excerpt(uneven)} lacks one of {count} frames. Download it again.")
    return count


def sharing_control_channels(state_dict: Mapping[str, Tensor]) -> int:
    """Channels of the picture that steers the frames: 0 for none, 3 for a given layer (fg2bg and bg2fg, docs/facts.md section 6).

    5 for a trained brush: the given layer, the area, and how precisely it is meant (training/stages/brush.py).
    """
    first = state_dict.get("kwargs_encoder.blocks_0.0.weight")
    return 0 if first is None else _size(first, 1)


def _size(tensor: Tensor, axis: int) -> int:
    """0 where a damaged file has no such axis: that fits nothing."""
    return tensor.shape[axis] if tensor.ndim > axis else 0


def _under(prefix: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}


def _half(parts: Mapping[str, Tensor]) -> int | None:
    """The half of a LoRA pair without the other one: 0 (up), 1 (down), or None."""
    there = [index for index in (0, 1) if f"lora::{index}" in parts]
    return there[0] if len(there) == 1 else None


def _check_shapes(delta: Delta) -> None:
    if delta.up is None or delta.down is None:
        return
    up, down = tuple(delta.up.shape), tuple(delta.down.shape)
    if len(up) != 2 or len(down) != 2 or up[1] != down[0]:
        raise WeightsError(
            f"{delta.key}: up {list(up)} and down {list(down)} do not fit, [out, rank] and [rank, in] are needed. Download the file again."
        )
    if delta.diff is not None and tuple(delta.diff.shape) != (up[0], down[1]):
        raise WeightsError(
            f"{delta.key}: diff {list(delta.diff.shape)} does not fit up @ down [{up[0]}, {down[1]}]. Download the file again."
        )


def excerpt(keys: list[str]) -> str:
    """The first three keys, fit to be shown, and how many more there are."""
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(map(_shown, keys[:3])) + more


def _shown(key: str) -> str:
    """A key as one short piece of text, whatever a file calls its tensors."""
    text = key if key.isprintable() else ascii(key)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
