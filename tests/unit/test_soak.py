"""The soak has something of every family, and tells what has grown."""

from __future__ import annotations

import random

import pytest

from dev import bundled
from dev.soak import LIMITS, Outcome, cases


@pytest.mark.parametrize("seed", range(5))
def test_a_few_cases_have_every_family_and_many_have_every_workflow(seed: int) -> None:
    few, many = (cases(count, random.Random(seed)) for count in (3, 50))
    assert {bundled.family(name) for name, _, _ in few} == set(bundled.FAMILIES.values())
    assert {name for name, _, _ in many} == set(bundled.names())
    assert len({(width, height) for _, width, height in many}) > 3
    assert many == cases(50, random.Random(seed)) != cases(50, random.Random(seed + 1))


@pytest.mark.parametrize("what", LIMITS)
def test_more_than_the_limit_has_grown(what: str) -> None:
    before = dict.fromkeys(LIMITS, 1000)
    at_limit = {name: 1000 + limit for name, limit in LIMITS.items()}
    assert Outcome(stock=[before, at_limit]).grown() == []
    assert Outcome(stock=[at_limit, before]).grown() == []
    [grown] = Outcome(stock=[before, {**at_limit, what: at_limit[what] + 1}]).grown()
    assert grown == f"1000 {what} at half-time, {at_limit[what] + 1} at the end"
