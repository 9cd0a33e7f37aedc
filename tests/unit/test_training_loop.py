"""Runs resume exactly, two processes do the work of one, and what is saved is what was trained."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training.data.latents import LatentSet
from training.loop import Draws, Objective, Run, draws_for, learning_rate, load_weights, save_weights, train
from training.mini import UNET
from training.models.schedule import VELOCITY
from training.models.text_encoder import TextEncoder
from training.models.unet import UNet
from training.stages.diffusion import DiffusionObjective

ROOT = Path(__file__).resolve().parents[2]


class Line(Objective):
    """Fits a line to noisy points; a second player fits another one."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.other = nn.Linear(3, 1), nn.Linear(3, 1)
        self.losses: list[float] = []

    def players(self) -> dict[str, list[nn.Parameter]]:
        return {"": list(self.line.parameters()), "other": list(self.other.parameters())}

    def forward(self, draws: Draws, player: str = "") -> dict[str, Tensor]:
        points, noise = draws.normal(draws.batch, 3)[draws.rows], draws.normal(draws.batch, 1)[draws.rows]
        line = self.other if player else self.line
        loss = (line(points) - points.sum(dim=1, keepdim=True) - 0.1 * noise).square().mean()
        if not player:
            self.losses.append(loss.item())
        return {"total": loss}


def run(folder: Path, **settings) -> Run:
    return Run(**{"folder": folder, "steps": 12, "batch": 4, "learning_rate": 0.05, "warm_up": 2, "cpu": True, "average": 0.9, **settings})


def new_line() -> Line:
    torch.manual_seed(5)
    return Line()


class Stopped(BaseException):
    pass


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = train(run(tmp_path / "whole", save_every=5), new_line())

    interrupted = new_line()
    forward = interrupted.forward

    def stop(draws: Draws, player: str = "") -> dict[str, Tensor]:
        if draws.step == 7:
            raise Stopped
        return forward(draws, player)

    interrupted.forward = stop
    with pytest.raises(Stopped):
        train(run(tmp_path / "parts", save_every=5), interrupted)
    resumed = train(run(tmp_path / "parts", save_every=5), new_line())

    assert resumed.losses == whole.losses[5:]
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, resumed.get_parameter(name)), name


def test_training_learns_and_keeps_the_average(tmp_path: Path) -> None:
    line = train(run(tmp_path / "run", steps=150, batch=32), new_line())
    assert line.losses[-1] < 0.05 < line.losses[0]
    assert (line.line.weight - 1).abs().max() < 0.1
    assert any((tmp_path / "run" / "log").rglob("events.out.*")), "there are no TensorBoard logs"


def test_rows_of_two_processes_make_the_batch_of_one(tmp_path: Path) -> None:
    settings = run(tmp_path)
    whole = draws_for(settings, 3)
    parts = [draws_for(settings, 3, rank, 2) for rank in (0, 1)]
    noise = whole.normal(4, 2)
    assert torch.equal(torch.cat([part.normal(4, 2)[part.rows] for part in parts]), noise[whole.rows])
    assert [part.smaller(2).rows for part in parts] == [slice(0, 1), slice(1, 2)] and parts[1].smaller(2).batch == 2
    with pytest.raises(ValueError, match="batch of 4 cannot be shared by 3"):
        draws_for(settings, 0, 0, 3)


def test_learning_rate(tmp_path: Path) -> None:
    settings = run(tmp_path, steps=100, warm_up=10, learning_rate=1.0)
    rates = [learning_rate(settings, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[10] == pytest.approx(1.0) and rates[-1] < 0.02
    assert rates[10:] == sorted(rates[10:], reverse=True)


TWO_PROCESSES = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
import importlib.util
spec = importlib.util.spec_from_file_location("test_training_loop", {test!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from training.loop import save_weights, train
line = train(module.run(Path({folder!r}), steps=20, batch=8, average=0.0), module.new_line())
import accelerate
if accelerate.PartialState().is_main_process:
    save_weights(line.state_dict(), Path({folder!r}) / "line.safetensors")
"""


def test_two_processes_learn_what_one_does_with_twice_the_batch(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES.format(root=str(ROOT), test=__file__, folder=str(tmp_path / "two")))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", str(script)]
    subprocess.run(launch, check=True, cwd=ROOT, timeout=300)
    one = train(run(tmp_path / "one", steps=20, batch=8, average=0.0), new_line())
    two = load_weights(tmp_path / "two" / "line.safetensors")
    for name, parameter in one.named_parameters():
        assert torch.allclose(two[name], parameter, atol=2e-3), name  # saved as fp16


def test_saved_weights(tmp_path: Path) -> None:
    save_weights({"a": torch.tensor([1.5, -2.0])}, tmp_path / "w.safetensors", {"note": "x"}, integers={"ids": torch.tensor([1, 2])})
    loaded = load_weights(tmp_path / "w.safetensors")
    assert loaded["a"].tolist() == [1.5, -2.0] and loaded["ids"].tolist() == [1, 2]
    assert not list(tmp_path.glob("*.part"))


def test_the_first_items_come_first(tmp_path: Path) -> None:
    """Where a stage begins with simple items: a few at the start, all of them from the middle on."""
    run = Run(tmp_path, steps=100, batch=500, learning_rate=1.0)
    data = LatentSet(torch.zeros(1000, 1, 4, 2, 2), torch.zeros(1000, 1, 77, dtype=torch.long))
    objective = DiffusionObjective(UNet(UNET), TextEncoder(64, 1, 4), data, prediction=VELOCITY, widens_until=0.5)
    highest = [int(objective.items(draws_for(run, step)).max()) for step in (0, 25, 49, 50)]
    assert 140 <= highest[0] < 150
    assert 550 <= highest[1] < 575
    assert highest[2] > 900
    assert len(set(objective.items(draws_for(run, 50)).tolist())) == 500
