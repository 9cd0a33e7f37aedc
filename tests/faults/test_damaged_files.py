"""Weight files in every state of damage: a message with their name, and the right file works right after."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lib_layerdiffuse.comfyui.alpha.managed_network import ManagedNetwork
from lib_layerdiffuse.comfyui.models.complete import check_complete
from lib_layerdiffuse.errors import DiaphaneError
from lib_layerdiffuse.nets.attention_sharing import AttentionSharing
from lib_layerdiffuse.nets.offset_encoder import OffsetEncoder
from lib_layerdiffuse.nets.transparent_decoder import TransparentDecoder
from lib_layerdiffuse.weights.read import read_state_dict
from tests.faults.reports import told
from tests.faults.slots import JOB, NAMES, SLOTS, at, spoilt

__all__ = ["at", "spoilt"]

PLACES = 10  # at which a file is cut off


# --- damage ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_truncated_at_ten_places(at: Callable[[str, str], Any], spoilt: Path, layer_models: Path, name: str) -> None:
    path = spoilt / name
    shutil.copy(layer_models / name, path)
    size = path.stat().st_size
    for place in reversed(range(PLACES)):
        os.truncate(path, place * size // PLACES + place)
        told(lambda: at(JOB[name], name), [name, "Delete it" if place else "is empty"])
    path.unlink()
    assert at(JOB[name], name)


def page(path: Path) -> None:
    path.write_bytes(b"<!DOCTYPE html><html><body>Not found</body></html>")


def pointer(path: Path) -> None:
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")


def deep(path: Path) -> None:
    """A header of brackets within brackets, more than Python's parser follows."""
    header = b'{"a":' * 100_000
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def endless(path: Path) -> None:
    """A few bytes that claim a thousand million layers."""
    table = {
        "latent_conv_in": (32, 4, 1, 1),
        "conv_in": (32, 3, 3, 3),
        "conv_out": (4, 32, 3, 3),
        "down_blocks.0.resnets.999999999.conv1": (4,),
    }
    table |= {f"down_blocks.{level}.resnets.0.conv1": (32, 32, 3, 3) for level in range(4)}
    save_file({f"{key}.weight": torch.zeros(shape) for key, shape in table.items()}, path)


def flat(path: Path) -> None:
    """The right keys on tensors without dimensions."""
    keys = ["latent_conv_in.weight", "conv_in.weight", "conv_out.weight", "down_blocks.0.resnets.0.conv1.weight"]
    save_file({key: torch.tensor(1.0) for key in keys}, path)


def header(entry: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        text = json.dumps({"a": entry}).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))

    return write


def several(path: Path) -> None:
    torch.save({"model": {"a": torch.zeros(1)}, "epoch": 3}, path)


STATES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "nothing in it": (lambda path: path.write_bytes(b""), ["is empty", "Delete it"]),
    "one byte": (lambda path: path.write_bytes(b"\0"), ["Delete it"]),
    "all zeros": (lambda path: path.write_bytes(bytes(100_000)), ["Delete it"]),
    "all ones": (lambda path: path.write_bytes(b"\xff" * 100_000), ["Delete it"]),
    "a pickle": (lambda path: torch.save({"a": torch.zeros(2)}, path), ["pickle", ".safetensors name", "rename it"]),
    "an old pickle": (lambda path: torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=False), ["pickle", "rename it"]),
    "a web page": (page, ["web page", "Delete it"]),
    "a git-LFS pointer": (pointer, ["git lfs pull"]),
    "a picture": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000)), ["Delete it"]),
    "no tensors": (lambda path: save_file({}, path), ["Choose another"]),
    "another model": (lambda path: save_file({"a": torch.zeros(2)}, path), ["no kind of file that Diaphane knows", "Choose another file"]),
    "brackets without end": (deep, ["Delete it"]),
    "layers without end": (endless, ["Choose another file"]),
    "tensors without dimensions": (flat, ["Choose another file"]),
    "an offset that is text": (header({"dtype": "F32", "shape": [2], "data_offsets": ["a", "b"]}), ["Delete it"]),
    "an offset beyond everything": (header({"dtype": "F32", "shape": [2], "data_offsets": [0, 10**40]}), ["Delete it"]),
    "offsets that do not fit the shape": (header({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}), ["Delete it"]),
    "a shape beyond everything": (header({"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 8]}), ["Delete it"]),
    "a negative shape": (header({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}), ["Delete it"]),
    "a type that nobody knows": (header({"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}), ["Delete it"]),
}
PICKLES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "nothing in it": (lambda path: path.write_bytes(b""), ["is empty"]),
    "a pickled list": (lambda path: torch.save([1], path), ["holds a list", "Choose"]),
    "a training state": (several, ["'model' is a dict", "Choose"]),
    "plain pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})), ["Delete it"]),
    "a zip of something else": (lambda path: shutil.make_archive(str(path.with_suffix("")), "zip", path.parent, "."), ["Delete it"]),
    "text": (lambda path: path.write_text("hello"), ["Delete it"]),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("how", ["by hand", "auto"])
def test_files_in_any_state(at: Callable[[str, str], Any], spoilt: Path, state: str, how: str) -> None:
    """auto: a broken file has the released name in the model folder."""
    name = "vae_transparent_decoder.safetensors" if how == "auto" else "mine.safetensors"
    make, words = STATES[state]
    make(spoilt / name)
    told(lambda: at("decode", name if how == "by hand" else "auto"), [name, *words])
    (spoilt / name).unlink()
    assert at("decode", "auto")


@pytest.mark.parametrize("state", PICKLES)
def test_pickles_in_any_state(at: Callable[[str, str], Any], spoilt: Path, state: str) -> None:
    make, words = PICKLES[state]
    path = spoilt / "mine.pth"
    made = make(path)
    if isinstance(made, str):
        Path(made).rename(path)
    told(lambda: at("decode Flux", path.name), [path.name, *words])
    assert at("decode Flux", "TransparentVAE.pth")


@pytest.mark.parametrize("slot", ["transparent SDXL", "transparent SD1.5", "transparent Flux", "joint from layer", "decode", "encode"])
def test_a_file_with_one_tensor_of_another_shape(at: Callable[[str, str], Any], spoilt: Path, layer_models: Path, slot: str) -> None:
    name = SLOTS[slot].fitting[0]
    tensors = read_state_dict(layer_models / name)
    middle = sorted(key for key, tensor in tensors.items() if tensor.ndim == 2 or slot.startswith(("decode", "encode")))[len(tensors) // 3]
    tensors[middle] = torch.zeros(*(side + 1 for side in tensors[middle].shape), dtype=tensors[middle].dtype)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, spoilt / "odd.safetensors")
    told(lambda: at(slot, "odd.safetensors"), ["odd.safetensors"])
    assert at(slot, name)


@pytest.mark.parametrize("slot", SLOTS)
def test_a_file_with_a_tensor_missing_or_too_many(at: Callable[[str, str], Any], spoilt: Path, layer_models: Path, slot: str) -> None:
    name = SLOTS[slot].fitting[0]
    tensors = {key: tensor.contiguous() for key, tensor in read_state_dict(layer_models / name).items()}
    strange = {**tensors, "something.else": torch.zeros(2)}
    save_file(strange, spoilt / "strange.safetensors")
    told(lambda: at(slot, "strange.safetensors"), ["strange.safetensors", "something.else"])
    part = {"decode Flux": "decoder.", "encode Flux": "encoder."}.get(slot, "")
    gone = sorted(key for key in tensors if key.startswith(part))[1]
    save_file({key: tensor for key, tensor in tensors.items() if key != gone}, spoilt / "short.safetensors")
    if "diff" not in gone:  # a delta file without one difference is a delta file
        message = told(lambda: at(slot, "short.safetensors"), ["short.safetensors"])
        assert "Choose a" in message or "Download it again" in message, message
    assert at(slot, name)


# Bits


def network_of(tensors: dict[str, Tensor]) -> None:
    """What a node does with a file before it computes anything: DiaphaneError, or a network that is whole."""
    if "latent_conv_in.weight" in tensors:
        check_complete(tensors, TransparentDecoder, "a whole decoder")
        ManagedNetwork(TransparentDecoder, tensors)
    elif any(key.startswith("hookers.") for key in tensors):
        check_complete(tensors, AttentionSharing, "a whole sharing file")
    else:
        check_complete(tensors, OffsetEncoder, "a whole encoder")
        ManagedNetwork(OffsetEncoder, tensors)


@pytest.mark.parametrize("name", ["vae_transparent_decoder", "vae_transparent_encoder", "layer_sd15_transparent_attn"])
def test_flipped_bits(tmp_path: Path, layer_models: Path, name: str) -> None:
    """In the header a flip is found, or changes nothing that matters; in a number only the checksum of a download finds it."""
    content = bytearray((layer_models / f"{name}.safetensors").read_bytes())
    length = 8 + int.from_bytes(content[:8], "little")
    dice = random.Random(name)
    bits = [dice.randrange(8 * 8) for _ in range(20)] + [dice.randrange(64, 8 * length) for _ in range(60)]
    bits += [dice.randrange(8 * length, 8 * len(content)) for _ in range(10)]
    path, found = tmp_path / "flipped.safetensors", 0
    for bit in bits:
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        try:
            network_of(read_state_dict(path))
        except DiaphaneError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000, error
            found += 1
        content[bit // 8] ^= 1 << bit % 8
    assert found > len(bits) // 2
    path.write_bytes(content)
    network_of(read_state_dict(path))


def test_weights_that_are_no_numbers(at: Callable[[str, str], Any], spoilt: Path, layer_models: Path) -> None:
    """A flipped bit that makes one weight infinite does not become a black picture without a word."""
    tensors = load_file(layer_models / "vae_transparent_decoder.safetensors")
    tensors["conv_out.weight"].view(-1)[3] = torch.inf
    save_file(tensors, spoilt / "infinite.safetensors")
    told(lambda: at("decode", "infinite.safetensors"), ["infinite.safetensors", "NaN or infinite", "Delete it"])
    assert at("decode", "vae_transparent_decoder.safetensors")
