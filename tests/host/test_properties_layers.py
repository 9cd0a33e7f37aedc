"""What holds for batches of layers of every arrangement, for their names, and for sizes that no network takes as they are."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportIndexIssue=false
from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_layerdiffuse.comfyui import layers
from lib_layerdiffuse.comfyui.alpha import codec as transparency
from lib_layerdiffuse.comfyui.patch.strength import Strength
from lib_layerdiffuse.errors import DiaphaneError
from lib_layerdiffuse.pixels.composite import Layer, Layers
from lib_layerdiffuse.pixels.layer_stack import as_layers, confined, in_order, named, stacked

few = settings(max_examples=50, deadline=None)
arrangements = st.sampled_from(layers.ARRANGEMENTS)
sets = st.integers(1, 4)
sides = st.integers(1, 40)


# --- batches ---------------------------------------------------------------------------------------------------------------------------


@few
@given(arrangements, sets)
def test_a_batch_of_sets_comes_apart_again(names: tuple[str, ...], count: int) -> None:
    rows = torch.arange(count * len(names)).view(-1, 1, 1, 1).float()
    found = layers.split_layers(rows, names)
    assert tuple(found) == names
    assert torch.equal(torch.stack([found[name] for name in names], dim=1).flatten(0, 1), rows)
    transparent = layers.foreground_rows({"samples": rows, "layers": names})
    assert transparent == ([int(row) for row in found[layers.FOREGROUND]] if layers.FOREGROUND in found else [])


@few
@given(arrangements, st.integers(0, 14))
def test_only_whole_sets_do(names: tuple[str, ...], count: int) -> None:
    if count % len(names):
        with pytest.raises(DiaphaneError, match=rf"batch of {count}, .* sets of {len(names)}"):
            layers.check_whole_sets(count, names)
    else:
        layers.check_whole_sets(count, names)


@few
@given(arrangements, sets, st.data())
def test_rows_that_the_host_has_cut_out_stay_what_they_were(names: tuple[str, ...], count: int, data: st.DataObject) -> None:
    total = count * len(names)
    kept = data.draw(st.lists(st.integers(0, total - 1), unique=True, min_size=1))
    cut = {"samples": torch.zeros(len(kept), 1, 1, 1), "layers": names, "batch_index": kept}
    expected = [row for row, before in enumerate(kept) if names[before % len(names)] == layers.FOREGROUND]
    assert layers.foreground_rows(cut) == expected
    assert layers.foreground_rows({**cut, "layers": None}) == list(range(len(kept)))


@few
@given(arrangements, sets, st.integers(0, 99))
def test_one_seed_for_all_rows_is_no_order(names: tuple[str, ...], count: int, seed: int) -> None:
    samples: dict[str, Any] = {"samples": torch.zeros(count * len(names), 1, 1, 1), "layers": names}
    expected = layers.foreground_rows(samples)
    if count * len(names) > 1:
        assert layers.foreground_rows({**samples, "batch_index": [seed] * (count * len(names))}) == expected


@few
@given(st.integers(1, 9000), st.integers(1, 9000), arrangements, sets)
def test_empty_latents_are_of_whole_tiles(width: int, height: int, names: tuple[str, ...], count: int) -> None:
    made = layers.empty_latent(width, height, names, count, torch.device("meta"))
    rows, channels, *size = made["samples"].shape
    assert (rows, channels) == (count * len(names), 4) and layers.layers_in(made) == names
    for cells, side in zip(size, (height, width), strict=True):
        assert cells % 8 == 0 and cells >= 8
        assert abs(cells * 8 - side) <= 32 or cells == 8


@few
@given(arrangements, st.lists(st.sampled_from([1, 2, 3, 77, 154]), min_size=4, max_size=4), st.data())
def test_prompts_of_layers(names: tuple[str, ...], lengths: list[int], data: st.DataObject) -> None:
    """Each row is its own layer's text, as often as the common length takes; the base's settings are kept."""
    texts = {name: torch.rand(1, length, 4) for name, length in zip(layers.NAMES, lengths, strict=False)}
    own = data.draw(st.sets(st.sampled_from(layers.NAMES)))
    base = [[torch.rand(1, lengths[3], 4), {"strength": 0.5}]]
    prompts = {name: [[text, {}]] if name in own else None for name, text in texts.items()}
    [[rows, kept]] = layers.layer_prompts(base, names, prompts)
    chosen = [texts[name] if name in own else base[0][0] for name in names]
    length = math.lcm(*(text.shape[1] for text in chosen))
    assert rows.shape == (len(names), length, 4) and kept == {"strength": 0.5} and kept is not base[0][1]
    for row, text in zip(rows, chosen, strict=True):
        assert torch.equal(row, text[0].repeat(length // text.shape[1], 1))


# --- names -----------------------------------------------------------------------------------------------------------------------------


@few
@given(st.lists(st.text(max_size=20), min_size=1, max_size=5), st.lists(st.text(max_size=20), max_size=7))
def test_names(own: list[str], lines: list[str]) -> None:
    stack = Layers(2, 2, tuple(Layer(torch.zeros(1, 2, 2, 4), name=name) for name in own))
    renamed = named(stack, lines)
    assert len(renamed.layers) == len(own)
    for index, layer in enumerate(renamed.layers):
        assert layer.name and layer.name.isprintable()
        line = lines[index] if index < len(lines) else ""
        wanted = "".join(filter(str.isprintable, line.strip() or own[index].strip()))
        assert layer.name == (wanted or f"Layer {index + 1}")
    assert named(renamed, []) == renamed or any(layer.name != layer.name.strip() for layer in renamed.layers)


@few
@given(st.integers(1, 30), st.randoms())
def test_inputs_that_grow_keep_their_order(count: int, dice: Any) -> None:
    grown: dict[str, Any] = {f"layer{index}": torch.full((1, 1, 1, 3), float(index)) for index in range(count)}
    keys = list(grown)
    dice.shuffle(keys)
    found = in_order({**{key: grown[key] for key in keys}, "layer999": None})
    assert [int(picture[0, 0, 0, 0]) for picture in found] == list(range(count))


@few
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_batches_go_together_or_are_refused(batches: list[int]) -> None:
    pictures = [torch.zeros(count, 2, 2, 4) for count in batches]
    if len(set(batches) - {1}) > 1:
        with pytest.raises(DiaphaneError, match="batches of"):
            stacked(None, pictures)
    else:
        assert len(stacked(None, pictures).flatten()) == max(batches)


@few
@given(sides, sides, st.integers(-50, 50), st.integers(-50, 50), st.integers(1, 2), st.integers(1, 2))
def test_areas_only_take_away(height: int, width: int, x: int, y: int, batch: int, masks: int) -> None:
    layer = Layer(torch.rand(batch, 9, 7, 4), x=x, y=y)
    nothing, everything = torch.zeros(1, 5, 5), torch.ones(masks if batch == masks else 1, 5, 5)
    assert not confined(layer, nothing, height, width).image[..., 3].any()
    kept = confined(layer, everything, height, width).image
    seen = as_layers(torch.zeros(1, height, width, 4))
    one = Layers(height, width, (*seen.layers, layer)).flatten()
    other = Layers(height, width, (*seen.layers, Layer(kept, x=x, y=y))).flatten()
    assert torch.equal(one, other)


# --- sizes -----------------------------------------------------------------------------------------------------------------------------


@few
@given(sides, sides, st.sampled_from([1, 8, 64]))
def test_padding_is_least_and_can_be_cropped(height: int, width: int, multiple: int) -> None:
    x = torch.rand(1, 2, height, width)
    padded = transparency.pad_to_multiple(x, multiple)
    assert torch.equal(padded[..., :height, :width], x)
    for side, before in zip(padded.shape[2:], (height, width), strict=True):
        assert side % multiple == 0 and 0 <= side - before < multiple
    assert torch.equal(padded[..., height:, :width], x[..., -1:, :].expand(-1, -1, padded.shape[2] - height, -1))
    assert torch.equal(padded[..., :height, width:], x[..., :, -1:].expand(-1, -1, -1, padded.shape[3] - width))


@few
@given(sides, sides, st.sampled_from([4, 8, 16, 64]))
def test_tiles_that_change_nothing_change_nothing(height: int, width: int, tile: int) -> None:
    x = torch.rand(1, 3, height, width)
    calls: list[tuple[int, ...]] = []

    def run(part: torch.Tensor) -> torch.Tensor:
        calls.append(tuple(part.shape[2:]))
        return part

    torch.testing.assert_close(transparency._tiled(run, x, tile, 1, 3), x, atol=1e-5, rtol=0.0)
    assert all(max(call) <= tile for call in calls)
    assert len(calls) == transparency._count_tiles(height * 8, width * 8, tile * 8)


@few
@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_ranges_that_meet_share_no_step_and_miss_none(a: float, b: float, c: float) -> None:
    start, middle, end = sorted((a, b, c))
    strengths = [Strength(1.0, start, middle), Strength(1.0, middle, end), Strength(1.0, start, end)]
    for step in range(20):  # no step samples at sigma 0
        first, second, whole = (strength.is_active(10.0 - step / 2, lambda percent: 10.0 * (1.0 - percent)) for strength in strengths)
        assert (first or second) == whole and (not (first and second))
