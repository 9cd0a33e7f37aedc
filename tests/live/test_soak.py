"""Nothing is left of many prompts: no hook, no patch, no memory, and no difference in what comes out."""

from __future__ import annotations

import pytest

from dev.soak import Act, Outcome, growth, soak

pytestmark = pytest.mark.live


def check(outcome: Outcome, prompts: int) -> None:
    assert outcome.done[Act.RUN] + outcome.done[Act.INTERRUPT] == prompts == len(outcome.resident)
    assert set(outcome.done) == set(Act) and outcome.compared > prompts / 3 and outcome.inspected > 4
    assert outcome.wrong == []
    assert outcome.left == []
    assert not outcome.grown_alive(), outcome.alive


def test_a_few_prompts_leave_nothing() -> None:
    check(soak(16, seed=10), 16)


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_many_prompts_leave_nothing_and_memory_is_flat() -> None:
    outcome = soak(200, seed=1)
    check(outcome, 200)
    grown, noise = growth(outcome.resident)
    assert grown <= noise, outcome.resident
