"""The transparency networks of a VAE, built from their files and kept as long as the VAE."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TypeVar

from comfy.sd import VAE
from torch import Tensor, nn

from ...errors import WeightsError
from ...nets.offset_encoder import OffsetEncoder
from ...nets.operations import NetworkClass
from ...nets.transparent_decoder import TransparentDecoder
from ...weights.catalogue import Family, Role
from ...weights.keys import decoder_latent_channels, encoder_latent_channels, looks_like, transparency_parts
from ...weights.read import read_state_dict
from ..models.complete import check_complete
from ..models.weight_files import AUTO, find_file, naming
from .managed_network import ManagedNetwork

Network = TypeVar("Network", bound=nn.Module)

# {VAE: {(file, its time of change, role): network}}: kept as long as the VAE, so that a second run loads nothing.
_networks: weakref.WeakKeyDictionary[VAE, dict[tuple[str, int, Role], ManagedNetwork]] = weakref.WeakKeyDictionary()


def transparency_decoder(vae: VAE, family: Family, choice: str = AUTO) -> ManagedNetwork[TransparentDecoder]:
    """The transparency decoder of a family, for pictures of `vae`, on its device. Raises DiaphaneError if they do not fit together."""
    return _network(vae, family, Role.DECODER, choice, TransparentDecoder)


def offset_encoder(vae: VAE, family: Family, choice: str = AUTO) -> ManagedNetwork[OffsetEncoder]:
    """The offset encoder of a family, for pictures of `vae`, on its device. Raises DiaphaneError if they do not fit together."""
    return _network(vae, family, Role.ENCODER, choice, OffsetEncoder)


def _network(vae: VAE, family: Family, role: Role, choice: str, network_class: NetworkClass[Network]) -> ManagedNetwork[Network]:
    path = find_file(family, role, choice, vae)
    loaded = _networks.setdefault(vae, {})
    key = (str(path), path.stat().st_mtime_ns, role)
    if key not in loaded:
        with naming(path):
            weights = _weights_of(read_state_dict(path), role, vae.latent_channels)
            check_complete(weights, network_class, f"a whole {role}")
            _check_numbers(weights)
        # On the VAE's device, not on ComfyUI's default one: Select VAE Device may have changed it.
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
