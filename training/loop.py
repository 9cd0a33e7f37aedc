"""The loop that every stage runs in: several processes, mixed precision, logs, checkpoints, and exact resumption.

Nothing random outlives a step: all draws come from generators seeded with the run's seed and the step, for the whole batch over all
processes, of which each takes its rows. So a resumed run gives the same result as one that was not interrupted, and two processes the
same as one.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm


@dataclass(frozen=True)
class Run:
    """Settings of every training."""

    folder: Path  # checkpoints and logs
    steps: int
    batch: int  # rows over all processes
    learning_rate: float
    warm_up: int = 100
    seed: int = 0
    weight_decay: float = 0.01
    clip: float = 1.0
    average: float = 0.0  # decay of the moving average of the weights; 0: the weights themselves are the result
    precision: str = "no"  # "no" or "bf16"
    save_every: int = 500
    log_every: int = 20
    cpu: bool = False


@dataclass(frozen=True)
class Draws:
    """Where a step takes its random numbers from, and which rows of the whole batch belong to this process."""

    step: int
    steps: int
    batch: int
    rows: slice
    generator: torch.Generator

    @property
    def progress(self) -> float:
        return self.step / self.steps

    def smaller(self, times: int) -> Draws:
        """The same for a batch `times` times smaller, at least one row for each process."""
        count = max(1, (self.rows.stop - self.rows.start) // times)
        rank = self.rows.start // (self.rows.stop - self.rows.start)
        whole = count * (self.batch // (self.rows.stop - self.rows.start))
        return Draws(self.step, self.steps, whole, slice(rank * count, (rank + 1) * count), self.generator)

    def uniform(self, *size: int) -> Tensor:
        return torch.rand(size, generator=self.generator)

    def normal(self, *size: int) -> Tensor:
        return torch.randn(size, generator=self.generator)


class Objective(nn.Module):
    """What a stage minimises. Its parameters that need a gradient are trained; frozen networks belong to it, too.

    `forward(draws)` -> the losses by name, "total" among them, for this process's rows. An objective with a second player
    (a discriminator) overrides `players`: each entry has parameters of its own and a turn in every step.
    """

    def players(self) -> dict[str, list[nn.Parameter]]:
        return {"": [parameter for parameter in self.parameters() if parameter.requires_grad]}

    def forward(self, draws: Draws, player: str = "") -> dict[str, Tensor]:
        raise NotImplementedError


Trained = TypeVar("Trained", bound=Objective)


@dataclass
class Averages:
    """Moving average of the trained weights, kept with the checkpoints."""

    decay: float
    shadow: dict[str, Tensor] = field(default_factory=dict)
    count: int = 0

    @torch.no_grad()
    def update(self, parameters: dict[str, nn.Parameter]) -> None:
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        self.count += 1
        for name, parameter in parameters.items():
            if name not in self.shadow:
                self.shadow[name] = parameter.detach().clone()
            self.shadow[name].lerp_(parameter, 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        return {"shadow": self.shadow, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shadow, self.count = state["shadow"], state["count"]


class Progress:
    """The next step, kept with the checkpoints."""

    def __init__(self) -> None:
        self.step = 0

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.step = state["step"]


def learning_rate(run: Run, step: int) -> float:
    """Linear warm-up, then a cosine down to a hundredth."""
    if step < run.warm_up:
        return run.learning_rate * (step + 1) / run.warm_up
    progress = (step - run.warm_up) / max(1, run.steps - run.warm_up)
    return run.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def draws_for(run: Run, step: int, rank: int = 0, world: int = 1) -> Draws:
    """The random numbers of one step. Raises ValueError if the batch is not a multiple of the processes."""
    if run.batch % world:
        raise ValueError(f"A batch of {run.batch} cannot be shared by {world} processes. Choose a multiple of {world}.")
    count = run.batch // world
    generator = torch.Generator().manual_seed(run.seed * 1_000_003 + step)
    return Draws(step, run.steps, run.batch, slice(rank * count, (rank + 1) * count), generator)


def train(run: Run, objective: Trained) -> Trained:
    """Train, or continue the run in `run.folder`. Returns the objective with the resulting (averaged) weights."""
    config = ProjectConfiguration(project_dir=str(run.folder), logging_dir=str(run.folder))
    players = objective.players()
    # With several players, the others' parameters have no gradient.
    parallel = DistributedDataParallelKwargs(find_unused_parameters=len(players) > 1)
    accelerator = Accelerator(
        mixed_precision=run.precision, cpu=run.cpu, log_with="tensorboard", project_config=config, kwargs_handlers=[parallel]
    )
    optimizers = {
        name: torch.optim.AdamW(parameters, lr=run.learning_rate, betas=(0.9, 0.99), weight_decay=run.weight_decay, fused=True)
        for name, parameters in players.items()
    }
    progress, averages = Progress(), Averages(run.average)
    prepared = accelerator.prepare(objective, *optimizers.values())
    model, stepping = prepared[0], dict(zip(optimizers, prepared[1:], strict=True))
    accelerator.register_for_checkpointing(progress, averages)
    if saved := next((folder for folder in _checkpoints(run.folder) if folder.is_dir()), None):
        accelerator.load_state(str(saved))
    accelerator.init_trackers("log")

    trained = {name: parameter for name, parameter in objective.named_parameters() if parameter.requires_grad}
    bar = tqdm(
        range(progress.step, run.steps),
        run.folder.name,
        initial=progress.step,
        total=run.steps,
        mininterval=5,
        disable=not accelerator.is_main_process,
    )
    for step in bar:
        draws = draws_for(run, step, accelerator.process_index, accelerator.num_processes)
        values: dict[str, Tensor] = {}
        for player, optimizer in stepping.items():
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(run, step)
            losses = model(draws, player)
            accelerator.backward(losses["total"])
            accelerator.clip_grad_norm_(players[player], run.clip)
            optimizer.step()
            optimizer.zero_grad()
            values |= {f"{player}/{name}" if player else name: value for name, value in losses.items()}
        if run.average:
            averages.update(trained)
        if step % run.log_every == 0 or step + 1 == run.steps:
            means = accelerator.reduce({name: value.detach().float() for name, value in values.items()}, reduction="mean")
            numbers = {name: value.item() for name, value in means.items()}
            accelerator.log(numbers | {"learning_rate": learning_rate(run, step)}, step)
            bar.set_postfix_str(", ".join(f"{name} {number:.3g}" for name, number in numbers.items()), refresh=False)
        progress.step = step + 1
        if progress.step % run.save_every == 0 or progress.step == run.steps:
            _save_checkpoint(accelerator, run.folder)
    accelerator.end_training()
    if run.average:
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(averages.shadow[name])
    return objective


def _checkpoints(folder: Path) -> tuple[Path, Path]:
    """The newest checkpoint, and the one before, which is there only while a new one takes its place."""
    return folder / "checkpoint", folder / "checkpoint.old"


def _save_checkpoint(accelerator: Accelerator, folder: Path) -> None:
    """Whenever this is interrupted, a whole checkpoint is there."""
    newest, old = _checkpoints(folder)
    part = folder / "checkpoint.part"
    accelerator.save_state(str(part))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if newest.is_dir():
            newest.rename(old)
        part.rename(newest)
        shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()


def save_weights(
    weights: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None, *, integers: dict[str, Tensor] | None = None
) -> None:
    """Write as fp16 safetensors (`integers` as they are), under a temporary name first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    halves = {key: tensor.detach().to("cpu", torch.float16).contiguous() for key, tensor in weights.items()}
    temporary = path.with_suffix(".part")
    save_file(halves | (integers or {}), temporary, metadata)
    temporary.replace(path)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Weights of a safetensors file, float32."""
    return {key: tensor.float() for key, tensor in load_file(path).items()}
