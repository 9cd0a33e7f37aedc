"""Nothing is left of many prompts: no hook, no patch, no memory, and no difference in what comes out."""

from __future__ import annotations

import pytest

from dev.soak import soak

pytestmark = pytest.mark.live


@pytest.mark.parametrize(("prompts", "seed"), [(16, 10), pytest.param(200, 1, marks=[pytest.mark.full, pytest.mark.timeout(3600)])])
def test_many_prompts_leave_nothing(prompts: int, seed: int) -> None:
    outcome = soak(prompts, seed)
    assert outcome.compared > prompts / 3 and outcome.inspected > 4 and outcome.interrupted == prompts // 7
    assert outcome.faults == []
    assert outcome.grown() == []
