"""Rows of the benchmark: what was asked for, what was measured, what it is compared with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .measure import Cost

HEAD = ("work", "ours", "textbook", "ratio", "floor", "ours / floor", "peak", "textbook's peak", "goal")


@dataclass(frozen=True)
class Row:
    """textbook: the same work done in the plain way, in the same run. floor: the least seconds that this machine could need."""

    work: str
    ours: Cost
    textbook: Cost | None = None
    floor: float | None = None
    goal: str = ""

    def cells(self) -> tuple[str, ...]:
        other, floor = self.textbook, self.floor
        return (
            self.work,
            seconds(self.ours.seconds),
            seconds(other.seconds) if other else "",
            f"{other.seconds / self.ours.seconds:.2f}" if other else "",
            seconds(floor) if floor else "",
            f"{self.ours.seconds / floor:.1f}" if floor else "",
            size(self.ours.peak),
            size(other.peak) if other else "",
            self.goal,
        )


def seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.3g} ms"


def size(value: int | None) -> str:
    return "" if value is None else f"{value / 2**20:.0f} MiB"


def markdown(rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (HEAD, ("---",) * len(HEAD), *rows))
