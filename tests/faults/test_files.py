"""Every weight file in every wrong place and every state of damage: a message with its name, and the right file works right after."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import folder_paths
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dev.stand_ins.seeded import seeded_noise
from lib_layerdiffuse.comfyui.alpha.managed_network import ManagedNetwork
from lib_layerdiffuse.comfyui.models.complete import check_complete
from lib_layerdiffuse.errors import DiaphaneError
from lib_layerdiffuse.nets.attention_sharing import AttentionSharing
from lib_layerdiffuse.nets.offset_encoder import OffsetEncoder
from lib_layerdiffuse.nets.transparent_decoder import TransparentDecoder
from lib_layerdiffuse.weights.catalogue import CATALOGUE
from lib_layerdiffuse.weights.read import read_state_dict
from tests.faults.conftest import Run
from tests.faults.reports import told

NAMES = [file.name for file in CATALOGUE]
WHOLE = {"weight": 1.0, "start": 0.0, "end": 1.0}
PLACES = 10  # at which a file is cut off


class Slot:
    """A job that a file does: the node and setting that take it, and all released files that fit."""

    def __init__(self, node_id: str, setting: str, owner: str, fitting: list[str], **inputs: Any):
        self.node_id, self.setting, self.owner, self.inputs = node_id, setting, owner, inputs
        self.fitting = [name if "." in name else f"{name}.safetensors" for name in fitting]

    def run(self, run: Run, model: Callable[[str], Any], vae: Callable[[str], Any], file: str) -> tuple[Any, ...]:
        owner = {"model": model(self.owner)} if self.setting == "file" else {}
        if self.setting != "file" or "blended" in self.inputs or self.node_id == "DiaphaneBlend":
            owner["vae"] = vae(self.owner)
        return run(self.node_id, **{**owner, **self.inputs, self.setting: file})


PICTURE = torch.sigmoid(seeded_noise("picture", (1, 64, 64, 4)))
DECODE = {"passes": 1, "tile_size": 0, "family": "auto"}
SHARED = ["layer_sd15_fg2bg", "layer_sd15_bg2fg"]  # of one structure: only a person can tell them apart
AROUND = ["layer_xl_fg2ble", "layer_xl_bg2ble"]
DECODERS = ["vae_transparent_decoder", "layer_sd15_vae_transparent_decoder"]
ENCODERS = ["vae_transparent_encoder", "layer_sd15_vae_transparent_encoder"]
SLOTS = {
    "transparent SDXL": Slot(
        "DiaphaneTransparent", "file", "SDXL", ["layer_xl_transparent_attn", "layer_xl_transparent_conv"], method="auto", **WHOLE
    ),
    "transparent SD1.5": Slot("DiaphaneTransparent", "file", "SD1.5", ["layer_sd15_transparent_attn"], method="auto", **WHOLE),
    "transparent Flux": Slot("DiaphaneTransparent", "file", "Flux", ["layerlora"], method="auto", **WHOLE),
    "joint": Slot("DiaphaneJoint", "file", "SD1.5", ["layer_sd15_joint"], **WHOLE),
    "joint from layer": Slot("DiaphaneJointFromLayer", "file", "SD1.5", SHARED, image=PICTURE, given="foreground", fit="crop", **WHOLE),
    "blend": Slot("DiaphaneBlend", "file", "SDXL", AROUND, image=PICTURE, given="foreground", fit="crop", **WHOLE),
    "extract": Slot(
        "DiaphaneExtract",
        "file",
        "SDXL",
        ["layer_xl_fgble2bg", "layer_xl_bgble2fg"],
        blended=PICTURE,
        layer=PICTURE,
        extract="background",
        fit="crop",
        **WHOLE,
    ),
    "decode": Slot("DiaphaneVAEDecode", "decoder_file", "SDXL", DECODERS, samples={"samples": torch.zeros(1, 4, 8, 8)}, **DECODE),
    "decode Flux": Slot(
        "DiaphaneVAEDecode", "decoder_file", "Flux", ["TransparentVAE.pth"], samples={"samples": torch.zeros(1, 16, 8, 8)}, **DECODE
    ),
    "encode": Slot("DiaphaneVAEEncode", "encoder_file", "SDXL", ENCODERS, image=PICTURE, family="auto", offset_scale=300.0),
    "encode Flux": Slot(
        "DiaphaneVAEEncode", "encoder_file", "Flux", ["TransparentVAE.pth"], image=PICTURE, family="auto", offset_scale=300.0
    ),
}


@pytest.fixture
def at(run: Run, model: Callable[[str], Any], vae: Callable[[str], Any]) -> Callable[[str, str], tuple[Any, ...]]:
    """at(slot, file): the node of a slot with a file chosen by hand."""
    return lambda slot, file: SLOTS[slot].run(run, model, vae, file)


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("name", NAMES)
def test_each_file_in_each_place(at: Callable[[str, str], Any], slot: str, name: str) -> None:
    if name in SLOTS[slot].fitting:
        assert at(slot, name)
    else:
        told(lambda: at(slot, name), [name])
    # Patching a model takes a while: once after each kind of file for every job is enough.
    if SLOTS[slot].setting != "file" or name == next(other for other in NAMES if other not in SLOTS[slot].fitting):
        assert at(slot, SLOTS[slot].fitting[0])


def test_every_file_has_a_place() -> None:
    assert {name for slot in SLOTS.values() for name in slot.fitting} == set(NAMES)


# --- damage ----------------------------------------------------------------------------------------------------------------------------

JOB = {name: next(slot for slot, known in SLOTS.items() if name in known.fitting) for name in NAMES}


@pytest.fixture
def spoilt(tmp_path: Path, layer_models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A second model folder, looked into first, for files that are not as they should be."""
    folder_paths.folder_names_and_paths["layer_model"][0].insert(0, str(tmp_path))
    return tmp_path


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


# Places


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, whom permissions do not bind."""
    if os.geteuid() != 0:
        yield
        return
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder whose parents anyone may pass through."""
    folder = Path(tempfile.mkdtemp(prefix="diaphane-faults-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.name == "nt", reason="optional: Windows has other permissions")
def test_no_permission_to_read(open_folder: Path, layer_models: Path) -> None:
    path = open_folder / "mine.safetensors"
    shutil.copy(layer_models / "vae_transparent_decoder.safetensors", path)
    path.chmod(0)
    with as_nobody():
        told(lambda: read_state_dict(path), [str(path), "may not be read by this user", "Change its permissions"])
    path.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
    with as_nobody():
        assert read_state_dict(path)


@pytest.mark.parametrize("kind", ["folder", "dangling link", "link in a circle", "pipe"])
@pytest.mark.skipif(os.name == "nt", reason="optional: links and pipes need privileges there")
def test_what_is_no_file(at: Callable[[str, str], Any], spoilt: Path, kind: str) -> None:
    path = spoilt / "mine.safetensors"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path if kind == "link in a circle" else spoilt / "nowhere")
    told(lambda: at("decode", path.name), [path.name, "There is no file", str(spoilt), "Choose another one"])
    assert at("decode", "auto")


def test_a_link_to_a_file_is_a_file(at: Callable[[str, str], Any], spoilt: Path, layer_models: Path) -> None:
    (spoilt / "link.safetensors").symlink_to(layer_models / "vae_transparent_decoder.safetensors")
    assert at("decode", "link.safetensors")
