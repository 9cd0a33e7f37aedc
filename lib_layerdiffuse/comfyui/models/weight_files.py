"""The LayerDiffuse files in ComfyUI's model folders, and the networks that are built from them."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import comfy.model_management as memory
import comfy.utils
import folder_paths
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from torch import Tensor, nn

from ...errors import DiaphaneError, WeightsError
from ...nets.offset_encoder import OffsetEncoder
from ...nets.operations import NetworkClass
from ...nets.transparent_decoder import TransparentDecoder
from ...weights.catalogue import Family, Role, lookup
from ...weights.fetch import ensure
from ...weights.grammar import decoder_latent_channels, encoder_latent_channels, looks_like, transparency_parts
from ...weights.read import read_state_dict
from ..alpha.managed_network import ManagedNetwork, check_complete

FOLDER = "layer_model"
EXTENSIONS = {".safetensors", ".pth", ".pt", ".ckpt"}
AUTO = "auto"

Network = TypeVar("Network", bound=nn.Module)

# Networks live as long as the VAE of the graph they were loaded for, so that a second run loads nothing.
_networks: weakref.WeakKeyDictionary[VAE, dict[tuple[str, int, Role], ManagedNetwork]] = weakref.WeakKeyDictionary()


def register_folder() -> None:
    """Make `models/layer_model` a model folder, keeping what extra_model_paths.yaml has added."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    paths, extensions = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, set(extensions) | EXTENSIONS)


def file_choices() -> list[str]:
    """What a node offers to choose from: "auto" and every file in the model folders."""
    return [AUTO, *folder_paths.get_filename_list(FOLDER)]


class OwnWeights(dict[Role, Path]):
    """LayerDiffuse files that a model or VAE brings along (attribute `layer_weights`), because no released ones fit it."""

    def path(self, role: Role) -> Path:
        """Raises DiaphaneError if there is none for the job."""
        path = self.get(role)
        if path is None or not path.is_file():
            raise DiaphaneError(f"This model has no weights for: {role}. Load an SD1.5 checkpoint for that.")
        return path


def own_weights(owner: Any) -> OwnWeights | None:
    """What a VAE, or the model configuration of a diffusion model, brings along."""
    # The host's model configurations answer getattr() with a warning in the log where there is none.
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
    """The file of that name in the model folders, none of which it can lead out of. Raises DiaphaneError if there is none."""
    path = folder_paths.get_full_path(FOLDER, name) if isinstance(name, str) else None
    if path is None or Path(path).suffix.lower() not in EXTENSIONS:
        folders = " or ".join(folder_paths.get_folder_paths(FOLDER))
        raise DiaphaneError(f"There is no file {name!r:.120} for models in {folders}. Choose another one, or auto.")
    return Path(path)


@contextmanager
def weights_for(model: ModelPatcher, family: Family, role: Role, choice: str = AUTO) -> Iterator[dict[str, Tensor]]:
    """The tensors that patch a model for a job, memory-mapped. What is found wrong with them in the block is said with the file's name."""
    path = find_file(family, role, choice, model.model.model_config)
    with _naming(path):
        yield read_state_dict(path)


def transparency_decoder(vae: VAE, family: Family, choice: str = AUTO) -> ManagedNetwork[TransparentDecoder]:
    """The transparency decoder of a family, for pictures of `vae`. Raises DiaphaneError if they do not belong together."""
    return _network(vae, family, Role.DECODER, choice, TransparentDecoder)


def offset_encoder(vae: VAE, family: Family, choice: str = AUTO) -> ManagedNetwork[OffsetEncoder]:
    """The offset encoder of a family, for pictures of `vae`. Raises DiaphaneError if they do not belong together."""
    return _network(vae, family, Role.ENCODER, choice, OffsetEncoder)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except WeightsError as error:
        raise DiaphaneError(f"{path.name}: {error}") from error


def _network(vae: VAE, family: Family, role: Role, choice: str, network_class: NetworkClass[Network]) -> ManagedNetwork[Network]:
    path = find_file(family, role, choice, vae)
    loaded = _networks.setdefault(vae, {})
    key = (str(path), path.stat().st_mtime_ns, role)
    if key not in loaded:
        with _naming(path):
            weights = _weights_of(read_state_dict(path), role, vae.latent_channels)
            check_complete(weights, network_class, f"a whole {role}")
            _check_numbers(weights)
        # Beside the VAE: *Select VAE Device* may have put it on a card of its own.
        loaded[key] = ManagedNetwork(network_class, weights, getattr(vae, "patcher", None))
    return loaded[key]


def _check_numbers(weights: Mapping[str, Tensor]) -> None:
    """One flipped bit can make a weight infinite and every picture black."""
    for key, tensor in weights.items():
        if not tensor.isfinite().all():
            raise WeightsError(f"It is damaged: {key} is not all numbers (NaN or infinite). Delete it and let Diaphane download it again.")


def _weights_of(file: dict[str, Tensor], role: Role, latent_channels: int) -> dict[str, Tensor]:
    """One network's weights out of a file that may hold both, if they fit the VAE's latents."""
    parts = transparency_parts(file)
    if role is Role.DECODER:
        weights, channels_of = parts.decoder, decoder_latent_channels
    else:
        weights, channels_of = parts.encoder, encoder_latent_channels
    if weights is None:
        raise WeightsError(f"This is no {role}. {looks_like(file)} Choose another file, or auto.")
    found = channels_of(weights)
    if found != latent_channels:
        raise WeightsError(
            f"This is made for latents with {found} channels, the VAE has {latent_channels}. "
            "Set family to the model's own (4 channels: SDXL or SD1.5, 16: Flux) or connect the VAE that belongs to it."
        )
    return weights
