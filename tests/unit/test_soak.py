"""The soak's plan is the same for the same seed and has something of everything, and growth is told from noise."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from dev import bundled
from dev.soak import Act, growth, plan


def test_a_long_plan_has_everything_several_times() -> None:
    turns = plan(200, seed=0)
    assert sum(turn.case is not None for turn in turns) == 200
    acts = Counter(turn.act for turn in turns)
    assert all(acts[act] >= 5 for act in Act), acts
    runs = Counter(turn.case for turn in turns if turn.act == Act.RUN)
    assert {case.workflow for case in runs if case} == set(bundled.names())
    assert len({(case.width, case.height) for case in runs if case}) > 3
    assert sum(count > 1 for count in runs.values()) > len(runs) / 2


@pytest.mark.parametrize("seed", range(5))
def test_a_short_plan_has_every_family_and_repeats_itself(seed: int) -> None:
    turns = plan(20, seed)
    assert sum(turn.case is not None for turn in turns) == 20 and turns[-1].case is not None
    runs = Counter(turn.case for turn in turns if turn.act == Act.RUN)
    assert {bundled.family(case.workflow) for case in runs if case} == set(bundled.FAMILIES.values())
    assert max(runs.values()) > 2


def test_the_seed_decides() -> None:
    assert plan(50, seed=1) == plan(50, seed=1) != plan(50, seed=2)


def samples(leak: float, seed: int, count: int = 200) -> np.ndarray:
    """Bytes after each prompt: filling up at first, then noise, with a jump now and then, on what is leaked."""
    draw = np.random.default_rng(seed)
    at = np.arange(count)
    filling = 300e6 * (1 - np.exp(-at / 15))
    jumps = draw.choice([0, 200e6], count, p=[0.95, 0.05])
    return 1e9 + filling + jumps + draw.normal(0, 15e6, count) + leak * at


@pytest.mark.parametrize("seed", range(5))
def test_growth_beyond_noise_is_a_leak(seed: int) -> None:
    for leak, grows in ((0, False), (1e6, True)):
        grown, noise = growth(samples(leak, seed).tolist())
        assert (grown > noise) == grows
        assert abs(grown - leak * 99) < 20e6


def test_growth_of_nothing_is_nothing() -> None:
    grown, noise = growth([1e9] * 20)
    assert (grown, noise) == (0, 1e7)
    with pytest.raises(ValueError, match="four samples or more, got 2"):
        growth([1.0, 2.0])
