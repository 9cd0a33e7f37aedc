"""ComfyUI in this process, on the CPU or as it chooses: for tests and benchmarks that need its models, not its server."""

# ComfyUI is not typed, and only there once it has been imported.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from dev import comfyui


def import_comfyui(base: Path, *arguments: str) -> None:
    """Imports ComfyUI as `main.py --base-directory BASE ARGUMENTS` would, once per process."""
    tree = str(comfyui.locate().tree)
    own, sys.argv = sys.argv, ["main.py", "--base-directory", str(base), *arguments]
    sys.path.insert(0, tree)
    try:
        importlib.import_module("comfy.options").enable_args_parsing()
        importlib.import_module("comfy.cli_args")
        # While the tree comes first: this repository has a folder of that name.
        importlib.import_module("nodes")
    finally:
        sys.argv = own
        sys.path.remove(tree)
        sys.path.append(tree)


@contextmanager
def sampling(patcher: Any, sigma: Tensor) -> Iterator[Callable[..., Tensor]]:
    """With a model loaded as for a sampling: `predict(latent, text)` is what it takes for the clean latent at `sigma`, one a row.

    Further inputs of the model, such as SDXL's `y`, by name.

    No two models that share one base at a time: loading one takes out the patches of the other.
    """
    import comfy.model_management

    comfy.model_management.load_models_gpu([patcher, *patcher.get_nested_additional_models()])
    options: dict[str, Any] = {"cond_or_uncond": [0], "sigmas": sigma, **patcher.model_options["transformer_options"]}

    def predict(latent: Tensor, text: Tensor, **more: Tensor) -> Tensor:
        return patcher.model.apply_model(latent, sigma, c_crossattn=text, transformer_options=options, **more)

    patcher.pre_run()
    try:
        patcher.prepare_state(sigma, {"transformer_options": options})
        yield predict
    finally:
        patcher.cleanup()
