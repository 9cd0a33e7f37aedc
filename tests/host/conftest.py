"""The host in this process, on the CPU, with an empty base directory of its own."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from dev import comfyui
from dev.in_process import import_comfyui
from dev.stand_ins.shapes import unet_config
from dev.stand_ins.weights import write_all

BASE = Path(tempfile.mkdtemp(prefix="diaphane-host-"))
import_comfyui(BASE, "--cpu")

from comfy.model_patcher import CoreModelPatcher, ModelPatcher  # noqa: E402 - only now can it be imported

from dev.stand_ins.models import configured  # noqa: E402


@pytest.fixture(scope="session")
def base_directory() -> Iterator[Path]:
    """The host's base directory: models, input, output and temp are below it."""
    for folder in ("models", "input", "output", "temp"):
        (BASE / folder).mkdir(exist_ok=True)
    yield BASE


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with all stand-in files."""
    folder = tmp_path_factory.mktemp("models")
    write_all(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _remove_base_directory() -> Iterator[None]:
    yield
    shutil.rmtree(BASE, ignore_errors=True)


@pytest.fixture(scope="session")
def pack() -> ModuleType:
    """This pack's entry point, imported as the host imports a folder in custom_nodes: as a package of its own."""
    name = "diaphane_under_test"
    spec = importlib.util.spec_from_file_location(name, comfyui.ROOT / "__init__.py", submodule_search_locations=[str(comfyui.ROOT)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def node_classes(pack: ModuleType) -> dict[str, Any]:
    """The pack's node classes by node id, as its entry point hands them to the host."""

    async def collect() -> list[Any]:
        extension = await pack.comfy_entrypoint()
        await extension.on_load()
        return await extension.get_node_list()

    return {node.define_schema().node_id: node for node in asyncio.run(collect())}


@pytest.fixture(scope="session")
def narrow_model(seeded: Callable[..., dict[str, Tensor]]) -> Callable[[str], ModelPatcher]:
    """narrow_model("sd15" or "sdxl") -> a fresh model of the golden data's narrow architecture, with its weights."""

    def build(name: str) -> ModelPatcher:
        family = {"sd15": "SD1.5", "sdxl": "SDXL"}[name]
        model = configured(family, unet_config(family)).get_model({}, "", device=torch.device("cpu"))
        model.diffusion_model.load_state_dict(seeded(f"narrow_{name}_unet", prefix="diffusion_model."))
        return CoreModelPatcher(model, load_device=torch.device("cpu"), offload_device=torch.device("cpu"))

    return build
