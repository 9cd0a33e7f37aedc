"""Sprites on a sheet never overlap, whatever their sizes, and little room is lost."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib_layerdiffuse.documents.sheet import LAYOUTS, PACKED, arrange

SIZES = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SIZES, st.sampled_from(LAYOUTS), st.integers(0, 5), st.integers(0, 6), st.booleans())
def test_properties_sheet(sizes: list[tuple[int, int]], layout: str, columns: int, padding: int, power_of_two: bool) -> None:
    sheet = arrange(sizes, layout, columns, padding, power_of_two)
    boxes = [(x, y, x + w, y + h) for (x, y), (w, h) in zip(sheet.places, sizes, strict=True)]
    for index, (left, top, right, bottom) in enumerate(boxes):
        assert left >= padding and top >= padding and right <= sheet.width - padding and bottom <= sheet.height - padding
        for other in boxes[:index]:
            beside = left >= other[2] + padding or right + padding <= other[0]
            assert beside or top >= other[3] + padding or bottom + padding <= other[1]
    if power_of_two:
        assert sheet.width.bit_count() == sheet.height.bit_count() == 1


def test_packing_wastes_little() -> None:
    sizes = [(20 + 7 * i % 45, 15 + 11 * i % 50) for i in range(60)]
    sheet = arrange(sizes, PACKED)
    assert sum(w * h for w, h in sizes) > 0.85 * sheet.width * sheet.height
    assert max(sheet.width, sheet.height) <= 2 * min(sheet.width, sheet.height)


@pytest.mark.parametrize(("columns", "size"), [(0, (32, 32)), (1, (8, 128)), (4, (32, 32)), (16, (128, 8))])
def test_a_grid_has_its_columns(columns: int, size: tuple[int, int]) -> None:
    sheet = arrange([(8, 8)] * 16, "grid", columns)
    assert (sheet.width, sheet.height) == size and sheet.places[1] == ((0, 8) if columns == 1 else (8, 0))
