"""Memory that runs out at every place that takes some, and a click on Cancel at every moment: the next run is as if nothing had been."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import comfy.model_management as memory
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dev.stand_ins.seeded import seeded_noise
from dev.stand_ins.upscaler import Upscaler
from tests.faults.conftest import Run
from tests.host.reference import noise, prompt, sample

PICTURE = torch.sigmoid(seeded_noise("picture", (1, 72, 64, 4)))
LATENT = {"samples": seeded_noise("latent", (1, 4, 8, 8))}
OOM = memory.OOM_EXCEPTION
Place = tuple[str, int]


class Places(TorchDispatchMode):
    """Counts the operations that each line of the pack leads to. At one place, `fails` says which of them run out of memory."""

    def __init__(self, place: Place | None = None, fails: Callable[[int], bool] = lambda nth: False):
        super().__init__()
        self.place, self.fails = place, fails
        self.seen: Counter[Place] = Counter()
        self.failures = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        place = here()
        if place is not None:
            self.seen[place] += 1
            if place == self.place and self.fails(self.seen[place]):
                self.failures += 1
                raise OOM("injected")
        return func(*args, **(kwargs or {}))


@cache
def part_of_the_pack(path: str) -> str | None:
    """A short name for a file of the pack."""
    parts = Path(path).parts
    return "/".join(parts[-2:]) if "lib_layerdiffuse" in parts or parts[-2:-1] == ("nodes",) else None


def here() -> Place | None:
    """The innermost line of the pack that is being run."""
    frame = sys._getframe(2)
    while frame is not None:
        if part := part_of_the_pack(frame.f_code.co_filename):
            return part, frame.f_lineno
        frame = frame.f_back
    return None


class Work:
    """Something that a node does, ready to be done again and again."""

    def __init__(self, do: Callable[[], Tensor], hooked: list[torch.nn.Module]):
        self.do, self.hooked = do, hooked
        self.expected = do()
        with Places() as places:
            assert torch.equal(do(), self.expected)
        self.places = dict(places.seen)

    def check_nothing_is_left(self) -> None:
        assert not any(module._forward_hooks or module._forward_pre_hooks for root in self.hooked for module in root.modules())
        assert torch.equal(self.do(), self.expected)


@pytest.fixture
def work(run: Run, vae: Callable[[str], Any]) -> Callable[[str], Work]:
    def make(name: str) -> Work:
        autoencoder = vae("SDXL")
        upscaler = Upscaler()
        common = {"vae": autoencoder, "family": "auto"}
        jobs: dict[str, Callable[[], Tensor]] = {
            "decode": lambda: run("DiaphaneVAEDecode", samples=LATENT, passes=2, tile_size=0, **common)[0],
            "decode in tiles": lambda: run(
                "DiaphaneVAEDecode", samples={"samples": LATENT["samples"].repeat(1, 1, 3, 1)}, passes=1, tile_size=128, **common
            )[0],
            "encode": lambda: run("DiaphaneVAEEncode", image=PICTURE, offset_scale=300.0, **common)[0]["samples"],
            "upscale": lambda: run("DiaphaneUpscale", upscale_model=upscaler, image=PICTURE)[0],
        }
        return Work(jobs[name], [autoencoder.first_stage_model, upscaler.model])

    return make


JOBS = ["decode", "decode in tiles", "encode", "upscale"]


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("how", ["once", "for good"])
def test_memory_runs_out_at_every_place(work: Callable[[str], Work], name: str, how: str) -> None:
    job = work(name)
    assert len(job.places) > 10, "the operations were not seen"
    outcomes: dict[Place, str] = {}
    for place in job.places:
        with Places(place, (lambda nth: nth == 1) if how == "once" else (lambda nth: True)) as places:
            try:
                result = job.do()
                torch.testing.assert_close(result, job.expected, rtol=1e-3, atol=1e-3)
                outcomes[place] = "went on"
            except Exception as error:
                text = str(error)
                ours = type(error).__name__ == "DiaphaneError" and "Not enough memory to" in text and "smaller tile size" in text
                assert ours or memory.is_oom(error) if hasattr(memory, "is_oom") else ours or isinstance(error, OOM), f"{place}: {error!r}"
                outcomes[place] = "ours" if ours else "the host's"
        assert places.failures, place
    job.check_nothing_is_left()
    # Where most of the memory goes: the networks say in our words that it does not suffice, and bleeding has the CPU to go on with.
    for (file, _), outcome in outcomes.items():
        assert outcome != "the host's" or not file.startswith("nets/"), outcomes
        assert outcome == "went on" or file != "pixels/bleed.py" or how == "for good", outcomes


# --- interrupts ------------------------------------------------------------------------------------------------------------------------


class Cancelled:
    """The host's question whether the artist has had enough, answered with yes the nth time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.asked, self.at = 0, 0
        monkeypatch.setattr(memory, "throw_exception_if_processing_interrupted", self)

    def __call__(self) -> None:
        self.asked += 1
        if self.asked == self.at:
            raise memory.InterruptProcessingException

    def runs(self, do: Callable[[], Tensor], places: int | None = None) -> Iterator[bool]:
        """Run to the end once, then once for each moment of it, or for so many of them; whether it was interrupted."""
        self.asked, self.at = 0, 0
        do()
        moments = self.asked
        for nth in range(1, moments + 1, 1 if places is None else max(1, moments // places)):
            self.asked, self.at = 0, nth
            try:
                do()
                yield False
            except memory.InterruptProcessingException:
                yield True
        self.at = 0


@pytest.mark.parametrize("name", JOBS)
def test_cancelled_at_every_moment(work: Callable[[str], Work], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    job = work(name)
    with monkeypatch.context() as patch:
        moments = [*Cancelled(patch).runs(job.do, 40)]
    assert all(moments) and len(moments) >= 2, moments
    job.check_nothing_is_left()


PATCHES: dict[str, tuple[str, dict[str, Any]]] = {
    "DiaphaneTransparent": ("SD1.5", {"method": "auto"}),
    "DiaphaneJoint": ("SD1.5", {}),
    "DiaphaneJointFromLayer": ("SD1.5", {"image": PICTURE[:1], "given": "foreground", "fit": "crop"}),
}


@pytest.mark.parametrize("node_id", PATCHES)
def test_sampling_cancelled_at_many_moments(run: Run, model: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, node_id: str) -> None:
    family, inputs = PATCHES[node_id]
    base = model(family)
    before = {key: tensor.clone() for key, tensor in base.model.state_dict().items()}
    [patched] = run(node_id, model=base, weight=1.0, start=0.0, end=0.7, **inputs)

    def do() -> Tensor:
        return sample(patched, prompt("sd15", 1), prompt("sd15", 2), noise(6, size=(8, 8)), steps=2)

    expected = do()
    with monkeypatch.context() as patch:
        moments = [*Cancelled(patch).runs(do, 10)]
    assert all(moments) and len(moments) >= 8
    assert torch.equal(do(), expected)
    memory.unload_all_models()
    assert not any(module._forward_hooks for module in base.model.modules())
    assert all(torch.equal(tensor, before[key]) for key, tensor in base.model.state_dict().items())
