"""Small networks of our own under ComfyUI's memory management."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import comfy.model_management as memory
import comfy.ops
import torch
from comfy.model_patcher import CoreModelPatcher, ModelPatcher
from torch import Tensor, nn

from ...errors import DiaphaneError
from ...nets.operations import NetworkClass, shapes_of

Network = TypeVar("Network", bound=nn.Module)
logger = logging.getLogger("diaphane")


class ManagedNetwork(Generic[Network]):
    """A network that ComfyUI loads, offloads and accounts for. It computes on `device` in `dtype`, the precision that suits it."""

    def __init__(self, network_class: NetworkClass[Network], state_dict: Mapping[str, Tensor], beside: ModelPatcher | None = None):
        """beside: the VAE's patcher, whose devices are taken; where ComfyUI puts VAEs if None."""
        self.device = memory.vae_device() if beside is None else beside.load_device
        offload_device = memory.vae_offload_device() if beside is None else beside.offload_device
        self.dtype = memory.vae_dtype(self.device, [torch.float16, torch.bfloat16, torch.float32])
        self._made_of = (network_class, state_dict)
        factory = {"dtype": self.dtype, "device": offload_device}

        def build() -> nn.Module:
            return network_class.from_shapes(shapes_of(state_dict), comfy.ops.manual_cast, **factory).eval()

        def fill(network: nn.Module, assign: bool) -> None:
            network.load_state_dict(state_dict, assign=assign)

        self.patcher = make_patcher(build, fill, self.device, offload_device)

    @property
    def network(self) -> Network:
        return self.patcher.model

    def beside(self, patcher: ModelPatcher) -> ManagedNetwork[Network]:
        """The network on the device of this patcher: itself, or another one of the same weights."""
        return self if patcher.load_device == self.device else ManagedNetwork(*self._made_of, patcher)

    def to_device(self, x: Tensor) -> Tensor:
        return x.to(device=self.device, dtype=self.dtype)

    def until_finite(self, what: str, result: Tensor) -> Iterator[None]:
        """For a loop whose body computes `result` in place: once, and once more in float32 if it is not finite.

        The network keeps float32 for later runs if that helps. what: the network, for a sentence. Raises DiaphaneError if it does not.
        """
        usual = self.dtype
        yield
        while not result.isfinite().all():
            if self.dtype == torch.float32:
                self.dtype = usual
                raise DiaphaneError(
                    f"The {what} gives results that are not all numbers (NaN or infinite), in float32, too. Set its file to auto; "
                    "if it is, close ComfyUI, delete the file and let Diaphane download it again."
                )
            logger.warning("The %s overflows in %s: computed again in float32.", what, self.dtype)
            self.dtype = torch.float32
            yield


def make_patcher(
    build: Callable[[], nn.Module],
    fill: Callable[[Any, bool], None],
    load_device: torch.device,
    offload_device: torch.device,
    disable_dynamic: bool = False,
) -> Any:
    """A patcher of the network that `build` makes and `fill(network, assign)` gives its weights.

    assign: whether the network is to hold the given tensors themselves. Under dynamic memory weights stay where their file is mapped until
    they are used. Both functions are kept: ComfyUI calls them again for another card, or with dynamic memory disabled.
    """
    patcher_class = ModelPatcher if disable_dynamic else CoreModelPatcher
    patcher = patcher_class(build(), load_device=load_device, offload_device=offload_device)
    fill(patcher.model, patcher.is_dynamic())
    patcher.cached_patcher_init = (make_patcher, (build, fill, load_device, offload_device))
    return patcher
