"""The host in this process, the stand-in files in its model folder, and what every fault has to leave behind: nothing."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

# First of all: only then can the host be imported.
from tests.host.conftest import base_directory, models_folder, node_classes, pack

__all__ = ["base_directory", "models_folder", "node_classes", "pack"]

import folder_paths  # noqa: E402
import torch  # noqa: E402
from comfy.model_patcher import ModelPatcher  # noqa: E402

from dev.stand_ins.models import build_model  # noqa: E402
from dev.stand_ins.vae import build_vae  # noqa: E402
from tests.host.reference import as_the_host_runs  # noqa: E402

Run = Callable[..., tuple[Any, ...]]


@pytest.fixture(autouse=True)
def _host() -> Iterator[None]:
    with as_the_host_runs():
        yield


@pytest.fixture(autouse=True)
def layer_models(models_folder: Path, pack: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the host looks for LayerDiffuse files."""
    folder = models_folder / "layer_model"
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "layer_model", ([str(folder)], {".safetensors", ".pth"}))
    folder_paths.filename_list_cache.pop("layer_model", None)
    return folder


@pytest.fixture(scope="session")
def model() -> Callable[[str], ModelPatcher]:
    """model(family) -> the narrow model of a family, made once."""
    return cache(lambda family: build_model(family, 0))


@pytest.fixture(scope="session")
def vae() -> Callable[[str], Any]:
    """vae(family) -> the stand-in VAE of a family, made once."""

    @cache
    def build(family: str) -> Any:
        with torch.inference_mode():
            made: Any = build_vae(family, 0)
            # Real ones are wide enough for pictures of 8x8 pixels, whose norms have one value for each channel.
            for module in made.first_stage_model.modules():
                if isinstance(module, torch.nn.GroupNorm):
                    module.num_groups = module.num_channels // 4
            return made

    return build


@pytest.fixture
def run(node_classes: dict[str, Any]) -> Run:
    """run(node id, **inputs) -> its outputs, as the host calls it."""

    def call(node_id: str, **inputs: Any) -> tuple[Any, ...]:
        node = node_classes[node_id].PREPARE_CLASS_CLONE(None)
        if node.INPUT_IS_LIST:
            inputs = {name: [value] for name, value in inputs.items()}
        output = node.EXECUTE_NORMALIZED(**inputs)
        return output.result or ()

    return call
