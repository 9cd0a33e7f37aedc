"""What holds for files with any keys, shapes and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from dev.stand_ins import shapes as stand_ins
from lib_layerdiffuse.errors import WeightsError
from lib_layerdiffuse.nets.operations import shapes_of
from lib_layerdiffuse.nets.transparent_decoder import DecoderLayout, TransparentDecoder
from lib_layerdiffuse.weights import keys as grammar
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
    assert (grammar.sharing_frames(file), grammar.sharing_control_channels(file)) == (frames, 3 * control)


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
