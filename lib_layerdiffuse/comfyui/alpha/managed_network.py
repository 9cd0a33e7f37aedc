"""Small networks of our own under ComfyUI's memory management."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
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

# Devices that are asked beforehand: the system swaps, and then ends ComfyUI, before memory runs out.
SILENT_DEVICES = ("cpu", "mps")
APPLE_OUT_OF_MEMORY = ("MPS backend out of memory", "Invalid buffer size")  # how torch's plain RuntimeErrors begin there


class ManagedNetwork(Generic[Network]):
    """A network that ComfyUI loads, offloads and accounts for, in the precision that suits its device."""

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

    def finite(self, what: str, compute: Callable[[], Tensor]) -> Tensor:
        """What `compute` makes with this network; once more in float32, for this and all later runs, if it is not all numbers.

        what: the network, for a sentence. Raises DiaphaneError if float32 does not help; the precision stays as it was then.
        """
        usual = self.dtype
        while not (result := compute()).isfinite().all():
            if self.dtype == torch.float32:
                self.dtype = usual
                raise DiaphaneError(
                    f"The {what} gives results that are not all numbers (NaN or infinite), in float32, too. Set its file to auto; "
                    "if it is, close ComfyUI, delete the file and let Diaphane download it again."
                )
            logger.warning("The %s overflows in %s: computed again in float32.", what, self.dtype)
            self.dtype = torch.float32
        return result

    def each_batch(self, count: int, bytes_each: int, run: Callable[[int, int], None], *, last_resort: bool) -> bool:
        """Load the network and call `run(first, last)` for pieces of [0, count) that fit into free memory.

        bytes_each: working memory for one item. A piece that runs out of memory is halved; False means that not even a single item
        fits, and that what has run so far is to be thrown away. last_resort: there is nothing else to try if it does not fit.
        """
        memory.load_models_gpu([self.patcher], memory_required=bytes_each)
        free = self.patcher.get_free_memory(self.device)
        if free < bytes_each and self.device.type in SILENT_DEVICES and not last_resort:
            return False
        size = max(1, min(count, int(free) // bytes_each))
        first = 0
        while first < count:
            if ran_out_of_memory(run, first, min(count, first + size)):
                # Only here, outside the handler, are the tensors of the failed run no longer referenced by its traceback.
                memory.soft_empty_cache()
                if size == 1:
                    return False
                size = (size + 1) // 2
            else:
                first += size
        return True


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


def ran_out_of_memory(run: Callable[..., None], *args: Any) -> bool:
    """Call `run` and say whether it failed for want of memory; any other error passes through."""
    try:
        run(*args)
    except Exception as error:
        if not str(error).startswith(APPLE_OUT_OF_MEMORY):
            memory.raise_non_oom(error)
        return True
    return False
