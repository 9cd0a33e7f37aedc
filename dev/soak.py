"""Many prompts on one server: `make soak`. Workflows of all families at several sizes in random order, with interrupts, unloaded models
and forgotten results in between.

make soak ARGS="--prompts 500 --seed 7"

What has to hold, or it ends with status 1: a case gives the same pictures every time; base models stay as they were, bit for bit, without
hooks or patches; what is alive in memory stays the same, and the process does not grow over the second half (of 200 prompts or more).
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dev import bundled
from dev.host import HostError
from dev.prompts import loader, node, set_widgets
from dev.server import ComfyServer, ServerError, WorkflowError, WorkflowInterrupted, staged

Json = dict[str, Any]

SIZES = ((64, 64), (128, 64), (64, 192), (192, 128), (120, 88))
# An interrupt has to come while there is something to stop.
ENDLESS = 500
LOADERS = ("StandInCheckpoint", "StandInModel")
# Base models stay in the host's cache for a while, and are made anew after that.
SERVER_ARGUMENTS = ("--cache-lru", "40")
# The host and torch keep a little for themselves: of tensors that are alive, and of the memory of a process that does nothing.
ALIVE, NOISE = 2**16, 0.01
INSPECT_EVERY = 8
# In so many prompts caches fill up: the memory of a process says nothing before.
FILLING = 100


class Act(str, Enum):
    RUN = "run"
    INTERRUPT = "interrupt"
    UNLOAD = "unload all models"
    FORGET = "unload all models and forget all results"


@dataclass(frozen=True)
class Case:
    workflow: str
    width: int
    height: int
    steps: int

    def __str__(self) -> str:
        return f"{self.workflow} {self.width}x{self.height}, {self.steps} steps"


@dataclass(frozen=True)
class Turn:
    """What to do next. An interrupt comes after so many steps of sampling."""

    act: Act
    case: Case | None = None
    after: int = 0


def plan(prompts: int, seed: int) -> list[Turn]:
    """So many prompts, run or interrupted, and what comes between them. Each case comes about four times."""
    draw = random.Random(seed)
    families = {family: [name for name in bundled.names() if bundled.family(name) == family] for family in bundled.FAMILIES.values()}
    for members in families.values():
        draw.shuffle(members)
    # Families take turns, so that a short plan has all of them.
    names = [name for turn in itertools.zip_longest(*families.values()) for name in turn if name is not None]
    count = min(max(3, prompts // 4), 3 * len(names))
    cases = [Case(names[n % len(names)], *draw.choice(SIZES), draw.randint(1, 2)) for n in range(count)]
    turns: list[Turn] = []
    for case in draw.sample(cases, count) + draw.choices(cases, k=max(0, prompts - count)):
        chance = draw.random()
        if chance < 0.08:
            turns.append(Turn(Act.UNLOAD))
        elif chance < 0.12:
            turns.append(Turn(Act.FORGET))
        turns.append(Turn(Act.INTERRUPT, case, draw.randint(1, 6)) if draw.random() < 0.15 else Turn(Act.RUN, case))
    return turns[: _place(turns, prompts)]


def _place(turns: Sequence[Turn], prompts: int) -> int:
    """How many turns it takes for so many prompts."""
    queued = list(itertools.accumulate(int(turn.case is not None) for turn in turns))
    return queued.index(prompts) + 1


@dataclass
class Outcome:
    done: Counter[Act] = field(default_factory=Counter)
    compared: int = 0
    inspected: int = 0
    wrong: list[str] = field(default_factory=list)  # cases that gave other pictures than before
    left: list[str] = field(default_factory=list)  # what was found in a base model
    resident: list[int] = field(default_factory=list)  # bytes of the process, after each prompt
    alive: list[tuple[int, int]] = field(
        default_factory=list
    )  # models and bytes of tensors when all was forgotten, at half-time and at the end

    def grown_alive(self) -> bool:
        """Whether more was alive at the end than at half-time."""
        (models, size), (models_at_end, size_at_end) = self.alive[0], self.alive[-1]
        return models_at_end > models or size_at_end > size + ALIVE


class Soak:
    """One server and what it has given so far."""

    def __init__(self, server: ComfyServer):
        self.server = server
        self.outcome = Outcome()
        self._first: dict[Case, dict[str, np.ndarray]] = {}
        self._weights: dict[str, str] = {}
        self._runs = itertools.count()

    def go(self, turns: Sequence[Turn]) -> Outcome:
        half = _place(turns, sum(turn.case is not None for turn in turns) // 2)
        for turn in turns[:half]:
            self._take(turn)
        self._take_stock()
        for turn in turns[half:]:
            self._take(turn)
        self._take_stock()
        return self.outcome

    def _take(self, turn: Turn) -> None:
        self.outcome.done[turn.act] += 1
        if turn.case is None:
            self.server.free(unload_models=True, free_memory=turn.act == Act.FORGET)
            return
        if turn.act == Act.INTERRUPT:
            self._interrupt(turn.case, turn.after)
        else:
            self._run(turn.case)
        self.outcome.resident.append(self.server.resident())

    def _run(self, case: Case) -> None:
        prompt = self._prompt(case, case.steps)
        if unknown := [name for name in _loaders(prompt) if name not in self._weights]:
            self._inspect(prompt, unknown)
        pictures = _pictures(self.server.outputs(self.server.queue(prompt)))
        first = self._first.setdefault(case, pictures)
        if first is not pictures:
            self.outcome.compared += 1
        if not pictures or not _same(first, pictures):
            self.outcome.wrong.append(f"{case}: prompt {len(self.outcome.resident) + 1} gave other pictures than the first such one")
        if self.outcome.done[Act.RUN] % INSPECT_EVERY == 0:
            self._inspect(prompt, list(_loaders(prompt)))

    def _interrupt(self, case: Case, after: int) -> None:
        def stop(_: str, value: float, most: float) -> None:
            if most == ENDLESS and value >= after:
                self.server.interrupt()

        try:
            self.server.queue(self._prompt(case, ENDLESS), stop)
        except WorkflowInterrupted:
            return
        self.outcome.wrong.append(f"{case}: prompt {len(self.outcome.resident) + 1} ran to its end in spite of an interrupt")

    def _prompt(self, case: Case, steps: int) -> Json:
        prompt = bundled.on_stand_ins(case.workflow)
        set_widgets(prompt, width=case.width, height=case.height, steps=steps)
        samplers = [name for name, entry in prompt.items() if "latent_image" in entry["inputs"]]
        for name in samplers:
            inputs = prompt[name]["inputs"]
            prompt[f"again {name}"] = node("StandInAgain", samples=inputs["latent_image"], run=next(self._runs))
            inputs["latent_image"] = [f"again {name}", 0]
        return prompt

    def _inspect(self, prompt: Json, loaders: Sequence[str]) -> Json:
        """Looks at the base models of a prompt; returns what was found in the last one."""
        nodes = {name: entry for name, entry in _loaders(prompt).items() if name in loaders}
        reports = {f"report {name}": node("StandInReport", model=["loader", 0], run=next(self._runs)) for name in nodes}
        found: Json = {}
        for name, entry in nodes.items():
            report = f"report {name}"
            [found] = self.server.queue({"loader": entry, report: reports[report]}).outputs[report]["report"]
            self.outcome.inspected += 1
            if found["weights"] != self._weights.setdefault(name, found["weights"]):
                self.outcome.left.append(f"{name}: other weights than at first")
            if found["hooks"] or found["patches"]:
                self.outcome.left.append(f"{name}: {found['hooks']} hooks, patches of {found['patches'][:3]}")
        return found

    def _take_stock(self) -> None:
        """What is alive when the server has forgotten everything."""
        self.server.free(unload_models=True, free_memory=True)
        # The server does so before the next prompt but one at the latest.
        nothing = {"1": node("EmptyImage", width=8, height=8, batch_size=1, color=next(self._runs))}
        self.server.queue({**nothing, "2": node("PreviewImage", images=["1", 0])})
        found = self._inspect({"1": loader("SDXL")}, ["StandInCheckpoint SDXL"])
        self.outcome.alive.append((found["models"], found["tensor_bytes"]))


def _loaders(prompt: Json) -> dict[str, Json]:
    """The loaders of base models in a prompt, by what they load."""
    return {f"{entry['class_type']} {entry['inputs']['family']}": entry for entry in prompt.values() if entry["class_type"] in LOADERS}


def _pictures(paths: Sequence[Path]) -> dict[str, np.ndarray]:
    """What was saved, by the beginnings of the files' names."""
    found: dict[str, np.ndarray] = {}
    for path in paths:
        if path.suffix == ".png" and "output" in path.parts:
            with Image.open(path) as image:
                found[f"{path.name.rpartition('_0')[0]} {len(found)}"] = np.array(image)
    return found


def _same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    if [(name, picture.shape) for name, picture in one.items()] != [(name, picture.shape) for name, picture in other.items()]:
        return False
    # 8 bits, rounded: how work is split up depends on the memory that is free.
    return all(np.abs(one[name].astype(int) - other[name]).max() <= 1 for name in one)


def growth(samples: Sequence[float]) -> tuple[float, float]:
    """What the second half of the samples has grown by, and its noise.

    Growth is the median slope between any two samples (Theil-Sen) over that half, so that no single jump decides; noise is the
    interquartile range of what the trend leaves, or one per cent of the median, whichever is more.
    """
    late = np.asarray(samples[len(samples) // 2 :], dtype=float)
    if len(late) < 2:
        raise ValueError(f"Growth takes four samples or more, got {len(samples)}.")
    first, second = np.triu_indices(len(late), k=1)
    slope = float(np.median((late[second] - late[first]) / (second - first)))
    lower, upper = np.percentile(late - slope * np.arange(len(late)), (25, 75))
    return slope * (len(late) - 1), max(float(upper - lower), NOISE * float(np.median(late)))


def soak(prompts: int, seed: int) -> Outcome:
    """Starts a server and lets it work through a plan."""
    with staged("soak-", stand_ins=True) as base:
        bundled.draw_cut_out(base / "input" / bundled.EXAMPLE, 128, 96)
        with ComfyServer(base, extra_args=SERVER_ARGUMENTS) as server:
            return Soak(server).go(plan(prompts, seed))


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs many prompts on one server and says whether anything is left of them.")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.prompts < 8:
        parser.error(f"--prompts has to be 8 or more, got {arguments.prompts}")
    try:
        outcome = soak(arguments.prompts, arguments.seed)
    except (HostError, ServerError, WorkflowError, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    grown, noise = growth(outcome.resident)
    for act, count in outcome.done.items():
        print(f"{count:5} x {act.value}")
    print(f"{outcome.compared} pictures compared with the first of their case, {outcome.inspected} looks at base models")
    print(f"process: {min(outcome.resident) / 2**20:.0f} to {max(outcome.resident) / 2**20:.0f} MiB, in the second half")
    print(f"         {grown / 2**20:+.1f} MiB, with a noise of {noise / 2**20:.1f} MiB")
    for when, (models, size) in zip(("half-time", "end"), outcome.alive, strict=True):
        print(f"alive at {when}: {models} models, {size / 2**20:.2f} MiB of tensors")
    faults = [*outcome.wrong, *outcome.left]
    print("\n".join(faults) or "nothing wrong, nothing left")
    grows = outcome.grown_alive() or (arguments.prompts >= 2 * FILLING and grown > noise)
    return 1 if faults or grows else 0


if __name__ == "__main__":
    sys.exit(main())
