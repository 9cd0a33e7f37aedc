"""A fuzz that follows the coverage: no bytes and no keys of a weight file do harm."""

from __future__ import annotations

import math
import random
import runpy
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from lib_layerdiffuse.errors import DiaphaneError, WeightsError
from lib_layerdiffuse.nets.attention_sharing import AttentionSharing
from lib_layerdiffuse.nets.offset_encoder import OffsetEncoder
from lib_layerdiffuse.nets.operations import shapes_of
from lib_layerdiffuse.nets.transparent_decoder import TransparentDecoder
from lib_layerdiffuse.weights import keys as grammar
from lib_layerdiffuse.weights.identify import looks_like
from lib_layerdiffuse.weights.read import read_state_dict

Lines = set[tuple[str, int]]
EXECUTIONS = 2500
TOKENS = [b'"shape"', b'"dtype"', b'"data_offsets"', b"[0,4]", b"[]", b"{}", b"null", b"-1", b"1e400", b"9" * 30, b'"F32"', b'"BF16"']
TOKENS += [b"::lora::0", b"::lora::1", b"::diff::0", b"latent_conv_in.weight", b"blocks.0.weight", b"down_blocks.", b"resnets."]
TOKENS += [b"hookers.layers.0.to_q_lora.0.down.weight", b"kwargs_encoder.", b"encoder.", b"decoder.", b"<html>", b"version https://git-lfs"]
TOKENS += [
    b"state_dict",
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"\x80\x02",
    b"cposix\nsystem\n",
    b"__metadata__",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
]


class Trace:
    """The lines of the pack that a call reaches."""

    def __init__(self) -> None:
        self.lines: Lines = set()

    def __enter__(self) -> Lines:
        self.before = sys.gettrace()
        sys.settrace(self._call)
        return self.lines

    def __exit__(self, *_: object) -> None:
        sys.settrace(self.before)

    def _call(self, frame: FrameType, event: str, arg: Any) -> Any:
        return self._line if "lib_layerdiffuse" in frame.f_code.co_filename else None

    def _line(self, frame: FrameType, event: str, arg: Any) -> Any:
        self.lines.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line


def mutated(content: bytes, corpus: list[bytes], dice: random.Random) -> bytes:
    """One of the usual ways to spoil a file, once or a few times."""
    result = bytearray(content)
    for _ in range(dice.choice([1, 1, 2, 4])):
        at = dice.randrange(len(result) + 1)
        match dice.randrange(7):
            case 0 if result:
                result[at % len(result)] ^= 1 << dice.randrange(8)
            case 1 if result:
                result[at % len(result)] = dice.choice([0, 1, 0x7F, 0x80, 0xFF, ord("{"), ord('"')])
            case 2:
                del result[at : at + dice.choice([1, 2, 8, 64])]
            case 3:
                result[at:at] = dice.choice(TOKENS)
            case 4:
                token = dice.choice(TOKENS)
                result[at : at + len(token)] = token
            case 5:
                del result[at:]
            case _:
                other = dice.choice(corpus)
                result = result[:at] + bytearray(other[dice.randrange(len(other) + 1) :])
    return bytes(result)


def fuzz(seeds: Iterable[bytes], run: Callable[[bytes], None], executions: int, seed: int) -> tuple[int, int]:
    """Run mutations of what has reached new lines, always the same ones. Lines that the seeds reach, and all lines reached."""
    dice, corpus, reached = random.Random(seed), [], set()

    def try_it(content: bytes) -> None:
        with Trace() as lines:
            run(content)
        if not lines <= reached:
            reached.update(lines)
            corpus.append(content)

    for content in seeds:
        try_it(content)
    first = len(reached)
    for _ in range(executions):
        # What was found last is tried most.
        try_it(mutated(corpus[-1 - int(len(corpus) * dice.random() ** 2)], corpus, dice))
    return first, len(reached)


def short(error: DiaphaneError) -> None:
    assert "\n" not in str(error) and len(str(error)) < 1500, error


def use(tensors: Mapping[str, Tensor]) -> None:
    """All that a file goes through before a network or model has to do with it."""
    looks_like(tensors)
    for function in (grammar.parse_deltas, grammar.transparency_parts, grammar.sharing_frames, grammar.sharing_control_channels):
        try:
            found = function(tensors)
        except WeightsError as error:
            short(error)
            continue
        if isinstance(found, grammar.TransparencyParts):
            for part, channels in ((found.decoder, grammar.decoder_latent_channels), (found.encoder, grammar.encoder_latent_channels)):
                try:
                    assert part is None or channels(part) > 0
                except WeightsError as error:  # the keys are right, the shapes are not
                    short(error)
    for network in (TransparentDecoder, OffsetEncoder, AttentionSharing):
        # What `check_complete` takes for an answer.
        with suppress(KeyError, IndexError, ValueError, ArithmeticError, RuntimeError):
            network.from_shapes(shapes_of(tensors), device="meta")


def small_files() -> list[bytes]:
    """A file of each kind and format, of a few hundred bytes."""
    decoder = {"latent_conv_in.weight": (1, 4, 1, 1), "conv_in.weight": (1, 3, 1, 1), "conv_out.weight": (4, 1, 1, 1)}
    decoder |= {"down_blocks.0.resnets.0.conv1.weight": (4, 1, 1, 1)}
    delta = {"k::lora::0": (2, 1), "k::lora::1": (1, 2), "diffusion_model.input_blocks.0.0.weight::diff::0": (1, 8, 1, 1)}
    sharing = {"hookers.layers.0.to_q_lora.0.down.weight": (1, 2), "kwargs_encoder.blocks_0.0.weight": (1, 3, 1, 1)}
    encoder = {f"blocks.{2 * index}.weight": (1, 1, 1, 1) for index in range(9)}
    files = []
    for table in (decoder, delta, sharing, encoder, {f"decoder.{key}": shape for key, shape in decoder.items()}):
        tensors = {key: torch.zeros(shape, dtype=torch.float16) for key, shape in table.items()}
        files.append(save(tensors))
    for zipped in (True, False):
        file = BytesIO()
        torch.save({"state_dict": {"latent_conv_in.weight": torch.zeros(1, 4, 1, 1)}}, file, _use_new_zipfile_serialization=zipped)
        files.append(file.getvalue())
    return files


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_no_bytes_do_harm(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"file{suffix}"

    def run(content: bytes) -> None:
        path.write_bytes(content)
        try:
            use(read_state_dict(path))
        except DiaphaneError as error:
            short(error)
            assert str(path) in str(error)

    seeds, reached = fuzz(small_files(), run, EXECUTIONS, seed=1)
    assert reached > seeds, "nothing new was found: the fuzz does not follow the coverage"
    assert not list(tmp_path.glob("[!f]*"))


def test_no_keys_do_harm() -> None:
    """The same on tables of keys: a line is a key and its shape."""

    def run(content: bytes) -> None:
        tensors = {}
        for line in content.decode("utf-8", "replace").split("\n")[:40]:
            key, _, sides = line.rpartition(" ")
            shape = [int(side) % 9 for side in sides.split("x") if side.isascii() and side.isdigit()][:5]
            if math.prod(shape) < 10_000:
                tensors[key] = torch.zeros(shape)
        use(tensors)

    seeds = ["latent_conv_in.weight 4x4x1x1\nconv_in.weight 4x3x3x3", "a::lora::0 4x2\na::lora::1 2x4\na::diff::0 4x4"]
    seeds += ["\n".join(f"blocks.{2 * index}.weight 4x4x3x3" for index in range(9)), "hookers.layers.0.to_q_lora.0.down.weight 2x4"]
    first, reached = fuzz([seed.encode() for seed in seeds], run, EXECUTIONS, seed=2)
    assert reached > first


def test_the_fuzz_finds_what_is_hidden() -> None:
    """A fault behind three conditions, each on a line of its own, is found by following the coverage."""
    source = (
        "def hidden(b):\n"
        "    if b[:1] == b'{':\n"
        "        if b[1:2] == b'\\xff':\n"
        "            if len(b) > 3:\n"
        "                raise RuntimeError\n"
    )
    with tempfile.TemporaryDirectory(prefix="lib_layerdiffuse") as folder:
        path = Path(folder) / "hidden.py"
        path.write_text(source)
        scope = runpy.run_path(str(path))
        with pytest.raises(RuntimeError):
            fuzz([b"aaaa"], scope["hidden"], 20_000, seed=3)
