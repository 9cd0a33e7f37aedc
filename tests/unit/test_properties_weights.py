"""What holds for files with any keys, shapes and numbers, and for bytes that are no file at all."""

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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from torch import Tensor

from dev.stand_ins import shapes as stand_ins
from lib_layerdiffuse.errors import DiaphaneError, WeightsError
from lib_layerdiffuse.nets.attention_sharing import AttentionSharing
from lib_layerdiffuse.nets.offset_encoder import OffsetEncoder
from lib_layerdiffuse.nets.operations import shapes_of
from lib_layerdiffuse.nets.transparent_decoder import DecoderLayout, TransparentDecoder
from lib_layerdiffuse.weights import keys as grammar
from lib_layerdiffuse.weights.identify import looks_like
from lib_layerdiffuse.weights.read import read_state_dict

ROOT = Path(__file__).parents[2]
few = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
names = st.text("abcdefgh_.0123456789", min_size=1, max_size=12)
KINDS = {"lora": ("lora::0", "lora::1"), "diff": ("diff::0",), "both": ("lora::0", "lora::1", "diff::0")}


# --- key grammar -----------------------------------------------------------------------------------------------------------------------


@st.composite
def delta_files(draw: st.DrawFn) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A delta file, and what each model key gets from it."""
    kinds = draw(st.dictionaries(names, st.sampled_from(list(KINDS)), min_size=1, max_size=5))
    file = {}
    for key, kind in kinds.items():
        out, rank, into = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
        parts = {"lora::0": (out, rank), "lora::1": (rank, into), "diff::0": (out, into)}
        file |= {f"{key}::{part}": torch.full(parts[part], float(len(file))) for part in KINDS[kind]}
    keys = draw(st.permutations(list(file)))
    return {key: file[key] for key in keys}, kinds


@few
@given(delta_files())
def test_deltas_come_out_as_they_went_in(found: tuple[dict[str, Tensor], dict[str, str]]) -> None:
    file, kinds = found
    deltas = grammar.parse_deltas(file)
    assert deltas.keys() == kinds.keys()
    for key, delta in deltas.items():
        parts = {"lora::0": delta.up, "lora::1": delta.down, "diff::0": delta.diff}
        assert {part for part, tensor in parts.items() if tensor is not None} == set(KINDS[kinds[key]])
        assert all(tensor is file[f"{key}::{part}"] for part, tensor in parts.items() if tensor is not None)


@few
@given(delta_files(), st.data(), names)
def test_what_is_missing_or_strange_is_named(found: tuple[dict[str, Tensor], dict[str, str]], data: st.DataObject, strange: str) -> None:
    file, _ = found
    halves = [key for key in file if "::lora::" in key]
    if halves:
        gone = data.draw(st.sampled_from(halves))
        with pytest.raises(WeightsError) as caught:
            grammar.parse_deltas({key: tensor for key, tensor in file.items() if key != gone})
        assert gone in str(caught.value) and "incomplete" in str(caught.value)
    with pytest.raises(WeightsError, match="not a LayerDiffuse delta file") as caught:
        grammar.parse_deltas({**file, strange: torch.zeros(1)})
    assert strange in str(caught.value)


@few
@given(st.lists(names, unique=True), st.lists(names, unique=True))
def test_keys_are_right_if_they_are_the_same(found: list[str], needed: list[str]) -> None:
    if set(found) == set(needed):
        grammar.check_keys(found, needed, "a file")
        return
    with pytest.raises(WeightsError) as caught:
        grammar.check_keys(found, needed, "a file")
    assert ("misses" in str(caught.value)) == bool(set(needed) - set(found))
    assert ("unknown" in str(caught.value)) == bool(set(found) - set(needed))


@few
@given(st.lists(st.text(max_size=300), max_size=6))
def test_excerpts_can_be_shown(keys: list[str]) -> None:
    shown = grammar.excerpt(keys)
    assert shown.isprintable() and len(shown) < 500
    assert (f"and {len(keys) - 3} more" in shown) == (len(keys) > 3)


@few
@given(st.integers(3, 4), st.integers(1, 3), st.sampled_from([4, 16]), st.integers(0, 4))
def test_a_decoder_is_what_its_shapes_say(levels: int, resnets: int, latents: int, attention: int) -> None:
    widths = tuple(8 * (level + 1) for level in range(levels))
    layout = DecoderLayout(widths, tuple(level == attention for level in range(levels)), resnets, 3, latents, 4)
    table = shapes_of(TransparentDecoder(layout, device="meta").state_dict())
    assert DecoderLayout.of(table) == layout
    assert shapes_of(TransparentDecoder.from_shapes(table, device="meta").state_dict()) == table
    for gone in ("conv_in.weight", "conv_out.weight", "latent_conv_in.weight", "down_blocks.0.resnets.0.conv1.weight"):
        with pytest.raises(KeyError):
            TransparentDecoder.from_shapes({key: shape for key, shape in table.items() if key != gone}, device="meta")


@few
@given(st.integers(1, 3), st.booleans())
def test_frames_are_counted(frames: int, control: bool) -> None:
    table = stand_ins.attention_sharing_shapes(frames, control=control)
    file = {key: torch.empty(shape, device="meta") for key, shape in table.items()}
    assert (grammar.sharing_frames(file), grammar.sharing_has_control(file)) == (frames, control)


@few
@given(st.sampled_from([4, 16]), st.sampled_from(["", "encoder."]))
def test_an_encoder_is_found_bare_or_in_a_file_of_both(latents: int, prefix: str) -> None:
    table = stand_ins.offset_encoder_shapes(latents)
    parts = grammar.transparency_parts({prefix + key: torch.empty(shape, device="meta") for key, shape in table.items()})
    assert parts.decoder is None and parts.encoder is not None
    assert shapes_of(parts.encoder) == {key: tuple(shape) for key, shape in table.items()}
    assert grammar.encoder_latent_channels(parts.encoder) == latents


# --- files -----------------------------------------------------------------------------------------------------------------------------

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool]


@few
@given(
    st.dictionaries(names, st.tuples(st.lists(st.integers(0, 4), max_size=4), st.sampled_from(DTYPES)), min_size=1, max_size=6),
    st.sampled_from([".safetensors", ".pth", ".ckpt"]),
)
def test_files_come_out_as_they_went_in(tmp_path: Path, table: Mapping[str, tuple[list[int], torch.dtype]], suffix: str) -> None:
    tensors = {key: (torch.rand(shape) * 9).to(dtype) for key, (shape, dtype) in table.items()}
    path = tmp_path / f"file{suffix}"
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    found = read_state_dict(path)
    assert found.keys() == tensors.keys()
    assert all(found[key].dtype == tensor.dtype and torch.equal(found[key], tensor) for key, tensor in tensors.items())


# --- a fuzz that follows the coverage --------------------------------------------------------------------------------------------------

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
    for function in (grammar.parse_deltas, grammar.transparency_parts, grammar.sharing_frames, grammar.sharing_has_control):
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
        # What `host.networks.check_complete` takes for an answer.
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
