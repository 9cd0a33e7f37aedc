"""The layer classes that the networks are built from, and how weights get into them.

Plain torch by default; ComfyUI, which manages memory, has its own `Conv2d`, `Linear`, … (`comfy.ops.manual_cast`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias, TypeVar

from torch import Tensor, nn

# Any namespace with the layer classes of torch.nn: torch.nn itself, or ComfyUI's namespace of the same names.
Operations: TypeAlias = Any

Network = TypeVar("Network", bound=nn.Module, covariant=True)


class NetworkClass(Protocol[Network]):
    """A network whose layout can be read from its weights."""

    def from_shapes(self, shapes: Mapping[str, tuple[int, ...]], ops: Any = ..., **factory: Any) -> Network: ...

    def from_state_dict(self, sd: Mapping[str, Tensor], ops: Any = ..., **factory: Any) -> Network: ...


def shapes_of(sd: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """{key: shape}"""
    return {key: tuple(tensor.shape) for key, tensor in sd.items()}


def build(network_class: NetworkClass[Network], sd: Mapping[str, Tensor], ops: Operations, factory: dict[str, Any]) -> Network:
    """The network that `sd` belongs to, with its weights, for inference. `factory`: dtype and device (those of the weights)."""
    first = next(iter(sd.values()))
    network = network_class.from_shapes(shapes_of(sd), ops, **{"dtype": first.dtype, "device": first.device} | factory)
    network.load_state_dict(sd)
    return network.eval()


def layer_with(layer_class: Any, tensors: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
    """A layer whose parameters are the given tensors, not copies: files stay memory-mapped until ComfyUI moves the layer."""
    layer = layer_class(*args, device="meta", dtype=tensors["weight"].dtype, **kwargs)
    layer.load_state_dict(tensors, assign=True)
    return layer
