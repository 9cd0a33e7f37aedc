"""Finds the LayerDiffuse files: in ComfyUI's model folders, among the released ones, or beside a model that has its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.model_management as memory
import comfy.utils
import folder_paths
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...errors import DiaphaneError, WeightsError
from ...weights.catalogue import Family, Role, lookup
from ...weights.fetch import ensure
from ...weights.read import read_state_dict

FOLDER = "layer_model"
EXTENSIONS = {".safetensors", ".pth", ".pt", ".ckpt"}
AUTO = "auto"


def register_folder() -> None:
    """Make `models/layer_model` a model folder, keeping what extra_model_paths.yaml has added."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    paths, extensions = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, set(extensions) | EXTENSIONS)


def file_choices() -> list[str]:
    """What a node offers to choose from: "auto" and every file in the model folders."""
    return [AUTO, *folder_paths.get_filename_list(FOLDER)]


class OwnWeights(dict[Role, Path]):
    """LayerDiffuse files of a model or VAE that no released ones fit (its attribute `layer_weights`)."""

    def path(self, role: Role) -> Path:
        """Raises DiaphaneError if there is no file for the role."""
        path = self.get(role)
        if path is None or not path.is_file():
            raise DiaphaneError(f"This model has no weights for: {role}. Load an SD1.5 checkpoint for that.")
        return path


def own_weights(owner: Any) -> OwnWeights | None:
    """The `layer_weights` of a VAE, or of the model configuration of a diffusion model; None if it has none."""
    # ComfyUI's model configurations log a warning when getattr() asks for an attribute that is not there.
    return getattr(owner, "__dict__", {}).get("layer_weights")


def find_file(family: Family, role: Role, choice: str = AUTO, owner: Any = None) -> Path:
    """The file for a job: the owner's own, the released one (fetched on first use, with progress in the node), or one chosen by hand."""
    if choice != AUTO:
        return _chosen(choice)
    own = own_weights(owner)
    if own is not None:
        return own.path(role)
    progress = comfy.utils.ProgressBar(1)

    def on_progress(done: int, total: int) -> None:
        memory.throw_exception_if_processing_interrupted()
        progress.update_absolute(done, max(total, 1))

    return ensure(lookup(family, role), [Path(folder) for folder in folder_paths.get_folder_paths(FOLDER)], on_progress)


def _chosen(name: str) -> Path:
    """The file of that name in the model folders, never outside them. Raises DiaphaneError if there is none."""
    path = folder_paths.get_full_path(FOLDER, name) if isinstance(name, str) else None
    if path is None or Path(path).suffix.lower() not in EXTENSIONS:
        folders = " or ".join(folder_paths.get_folder_paths(FOLDER))
        raise DiaphaneError(f"There is no file {name!r:.120} for models in {folders}. Choose another one, or auto.")
    return Path(path)


@contextmanager
def weights_for(model: ModelPatcher, family: Family, role: Role, choice: str = AUTO) -> Iterator[dict[str, Tensor]]:
    """The tensors of the file that patches a model for a job, memory-mapped. A WeightsError in the block gets the file's name."""
    path = find_file(family, role, choice, model.model.model_config)
    with naming(path):
        yield read_state_dict(path)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns a WeightsError in the block into a DiaphaneError with the file's name."""
    try:
        yield
    except WeightsError as error:
        raise DiaphaneError(f"{path.name}: {error}") from error
