"""Small networks of our own under ComfyUI's memory management."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import comfy.model_management as memory
import comfy.ops
import torch
from comfy.model_patcher import CoreModelPatcher
from torch import Tensor, nn

from ..errors import WeightsError
from ..nets.operations import NetworkClass, shapes_of
from ..weights.grammar import check_keys

Network = TypeVar("Network", bound=nn.Module)


class ManagedNetwork(Generic[Network]):
    """A network that ComfyUI loads, offloads and accounts for, in the precision that suits the VAE's device."""

    def __init__(self, network_class: NetworkClass[Network], state_dict: Mapping[str, Tensor]):
        self.device = memory.vae_device()
        self.dtype = memory.vae_dtype(self.device, [torch.float16, torch.bfloat16, torch.float32])
        offload_device = memory.vae_offload_device()
        self.network: Network = network_class.from_state_dict(state_dict, comfy.ops.manual_cast, dtype=self.dtype, device=offload_device)
        self.patcher = CoreModelPatcher(self.network, load_device=self.device, offload_device=offload_device)

    def to_device(self, x: Tensor) -> Tensor:
        return x.to(device=self.device, dtype=self.dtype)

    def each_batch(self, count: int, bytes_each: int, run: Callable[[int, int], None], *, last_resort: bool) -> bool:
        """Load the network and call `run(first, last)` for pieces of [0, count) that fit into free memory.

        bytes_each: working memory for one item. A piece that runs out of memory is halved; False means that not even a single item
        fits, and that what has run so far is to be thrown away. last_resort: there is nothing else to try if it does not fit.
        """
        memory.load_models_gpu([self.patcher], memory_required=bytes_each)
        free: Any = memory.get_free_memory(self.device)
        if free < bytes_each and self.device.type == "cpu" and not last_resort:
            return False  # where a graphics card raises an error, the system swaps, and then ends ComfyUI
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


def ran_out_of_memory(run: Callable[..., None], *args: Any) -> bool:
    """Call `run` and say whether it failed for want of memory; any other error passes through."""
    try:
        run(*args)
    except Exception as error:
        memory.raise_non_oom(error)
        return True
    return False


def check_complete(weights: Mapping[str, Tensor], network_class: NetworkClass[nn.Module], what: str) -> None:
    """Raise WeightsError unless these are exactly the weights that a network of this class needs. what: "a whole …"."""
    shapes = shapes_of(weights)
    try:
        expected = shapes_of(network_class.from_shapes(shapes, device="meta").state_dict())
    except KeyError as error:
        raise WeightsError(f"This is not {what}: it misses {error.args[0]}. Choose another file.") from error
    except (IndexError, ValueError, ArithmeticError, RuntimeError) as error:
        # No network has such shapes: too few dimensions, widths that norms or heads cannot divide, or none at all.
        raise WeightsError(f"This is not {what}: its tensors have impossible shapes. Choose another file.") from error
    check_keys(weights, expected, what)
    for key, shape in expected.items():
        if shapes[key] != shape:
            raise WeightsError(f"This is not {what}: {key} has shape {list(shapes[key])}, {list(shape)} is needed. Choose another file.")
