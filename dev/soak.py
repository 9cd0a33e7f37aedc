"""Many prompts on one server: `make soak`. Bundled workflows of all families in random order, with interrupts, unloaded models and
forgotten results in between.

make soak ARGS="--prompts 500 --seed 7"

What has to hold, or it ends with status 1: a workflow gives the same pictures every time; base models stay as they were, bit for bit,
without hooks or patches; when all is forgotten, nothing has grown since half-time: models, tensors, memory, threads, temporary files.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dev import bundled
from dev.comfyui import SetupError
from dev.prompts import loader, node, set_widgets
from dev.results import WorkflowInterrupted
from dev.server import ComfyServer, ServerError, WorkflowError, staged

Json = dict[str, Any]
Case = tuple[str, int, int]  # workflow, width, height

SIZES = ((64, 64), (128, 64), (64, 192), (192, 128), (120, 88))
# An interrupt has to come while there is something to stop.
ENDLESS = 500
LOADERS = ("StandInCheckpoint", "StandInModel")
INTERRUPT_EVERY, FREE_EVERY, INSPECT_EVERY = 7, 5, 8
# What a server may have more of at the end than at half-time. Caches of ComfyUI, torch and the C library still fill a little.
LIMITS = {"models": 0, "bytes of tensors": 2**16, "bytes of memory": 2**26, "threads": 8, "temporary files": 0}


@dataclass
class Outcome:
    compared: int = 0
    inspected: int = 0
    interrupted: int = 0
    faults: list[str] = field(default_factory=list)
    stock: list[dict[str, int]] = field(default_factory=list)  # at half-time and at the end; the keys are those of LIMITS

    def grown(self) -> list[str]:
        before, after = self.stock
        return [
            f"{before[what]} {what} at half-time, {after[what]} at the end" for what in LIMITS if after[what] - before[what] > LIMITS[what]
        ]


def cases(count: int, draw: random.Random) -> list[Case]:
    """So many bundled workflows at some size. Families take turns, so that a few cases have all of them."""
    families = [[name for name in bundled.names() if bundled.family(name) == family] for family in dict.fromkeys(bundled.FAMILIES.values())]
    for members in families:
        draw.shuffle(members)
    names = [name for turn in itertools.zip_longest(*families) for name in turn if name is not None]
    return [(name, *draw.choice(SIZES)) for name in names[:count]]


class Soak:
    """One server and what it has given so far."""

    def __init__(self, server: ComfyServer, temporary: Path):
        self.server = server
        self.temporary = temporary
        self.outcome = Outcome()
        self._first: dict[Case, list[np.ndarray]] = {}
        self._weights: dict[str, str] = {}
        self._runs = itertools.count()

    def go(self, prompts: int, seed: int) -> Outcome:
        draw = random.Random(seed)
        # Each comes about four times.
        chosen = cases(max(3, prompts // 4), draw)
        for number in range(prompts):
            if number % FREE_EVERY == FREE_EVERY - 1:
                self.server.free(unload_models=True, free_memory=draw.random() < 0.5)
            if number == prompts // 2:
                self._take_stock()
            case = draw.choice(chosen)
            if number % INTERRUPT_EVERY == INTERRUPT_EVERY - 1:
                self._interrupt(case, after=draw.randint(1, 6))
            else:
                self._run(case, inspect=number % INSPECT_EVERY == 0)
        self._take_stock()
        return self.outcome

    def _run(self, case: Case, inspect: bool) -> None:
        prompt = self._prompt(case, steps=1)
        if inspect or not self._loaders(prompt).keys() <= self._weights.keys():
            self._inspect(prompt)
        pictures = _pictures(self.server.outputs(self.server.queue(prompt)))
        first = self._first.setdefault(case, pictures)
        self.outcome.compared += first is not pictures
        # 8 bits, rounded: how work is split up depends on the memory that is free.
        same = len(first) == len(pictures) and all(
            a.shape == b.shape and np.abs(a - b).max() <= 1 for a, b in zip(first, pictures, strict=True)
        )
        if not pictures or not same:
            self.outcome.faults.append(f"{case}: other pictures than the first time")

    def _interrupt(self, case: Case, after: int) -> None:
        def stop(_: str, value: float, most: float) -> None:
            if most == ENDLESS and value >= after:
                self.server.interrupt()

        try:
            self.server.queue(self._prompt(case, ENDLESS), stop)
            self.outcome.faults.append(f"{case}: ran to its end in spite of an interrupt")
        except WorkflowInterrupted:
            self.outcome.interrupted += 1

    def _prompt(self, case: Case, steps: int) -> Json:
        name, width, height = case
        prompt = bundled.on_stand_ins(name)
        set_widgets(prompt, width=width, height=height, steps=steps)
        # Otherwise the server has the result already.
        for sampler in [sampler for sampler, entry in prompt.items() if "latent_image" in entry["inputs"]]:
            inputs = prompt[sampler]["inputs"]
            prompt[f"again {sampler}"] = node("StandInAgain", samples=inputs["latent_image"], run=next(self._runs))
            inputs["latent_image"] = [f"again {sampler}", 0]
        return prompt

    def _loaders(self, prompt: Json) -> dict[str, Json]:
        """The loaders of base models in a prompt, by what they load."""
        return {f"{entry['class_type']} {entry['inputs']['family']}": entry for entry in prompt.values() if entry["class_type"] in LOADERS}

    def _inspect(self, prompt: Json) -> Json:
        """Looks into the base models of a prompt; returns the last report."""
        found: Json = {}
        for name, entry in self._loaders(prompt).items():
            report = node("StandInReport", model=["loader", 0], run=next(self._runs))
            [found] = self.server.queue({"loader": entry, "report": report}).outputs["report"]["report"]
            self.outcome.inspected += 1
            if found["weights"] != self._weights.setdefault(name, found["weights"]):
                self.outcome.faults.append(f"{name}: other weights than at first")
            if found["hooks"] or found["patches"]:
                self.outcome.faults.append(f"{name}: {found['hooks']} hooks, patches of {found['patches'][:3]}")
        return found

    def _take_stock(self) -> None:
        """What there is when the server has forgotten everything."""
        self.server.free(unload_models=True, free_memory=True)
        # The server does so before the next prompt but one at the latest.
        nothing = {"1": node("EmptyImage", width=8, height=8, batch_size=1, color=next(self._runs))}
        self.server.queue({**nothing, "2": node("PreviewImage", images=["1", 0])})
        report = self._inspect({"1": loader("SDXL")})
        process = self.server.process()
        files = sum(path.is_file() for path in self.temporary.rglob("*"))
        counts = report["models"], report["tensor_bytes"], process.memory_info().rss, process.num_threads(), files
        self.outcome.stock.append(dict(zip(LIMITS, counts, strict=True)))


def _pictures(paths: Sequence[Path]) -> list[np.ndarray]:
    """The pictures that were saved."""
    return [np.array(Image.open(path)).astype(int) for path in paths if path.suffix == ".png" and "output" in path.parts]


def soak(prompts: int, seed: int) -> Outcome:
    """Starts a server and runs so many prompts on it."""
    with staged("soak-", stand_ins=True) as base:
        bundled.draw_cut_out(base / "input" / bundled.EXAMPLE, 128, 96)
        bundled.draw_document(base / "input" / bundled.DOCUMENT, 128, 96)
        temporary = base / "temporary"
        temporary.mkdir()
        # Base models stay in the cache for a while, and are made anew after that.
        with ComfyServer(base, extra_args=("--cache-lru", "40"), env={"TMPDIR": str(temporary)}) as server:
            return Soak(server, temporary).go(prompts, seed)


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs many prompts on one server and says whether anything is left of them.")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        outcome = soak(arguments.prompts, arguments.seed)
    except (SetupError, ServerError, WorkflowError, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{outcome.compared} results compared, {outcome.inspected} looks at base models, {outcome.interrupted} interrupts")
    print(*outcome.stock, sep="\n")
    faults = outcome.faults + outcome.grown()
    print("\n".join(faults) or "nothing wrong, nothing left")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
