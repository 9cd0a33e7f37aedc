"""Where the networks take their layers from, and how they are filled.

Plain torch by default; a host that manages memory brings its own `Conv2d`, `Linear`, … (ComfyUI: `comfy.ops.manual_cast`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias, TypeVar

from torch import Tensor, nn

# Any namespace with the layer classes of torch.nn: torch.nn itself, or what a host that manages memory puts in their place.
Operations: TypeAlias = Any

Network = TypeVar("Network", bound=nn.Module, covariant=True)


class NetworkClass(Protocol[Network]):
    """A network whose layout can be read from its weights."""

    def from_shapes(self, shapes: Mapping[str, tuple[int, ...]], ops: Any = ..., **factory: Any) -> Network: ...

    def from_state_dict(self, sd: Mapping[str, Tensor], ops: Any = ..., **factory: Any) -> Network: ...


def shapes_of(sd: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """{key: shape}"""
    return {key: tuple(tensor.shape) for key, tensor in sd.items()}


def filled(network_class: NetworkClass[Network], sd: Mapping[str, Tensor], ops: Operations, factory: dict[str, Any]) -> Network:
    """The network that `sd` belongs to, for inference. Without a dtype or device in `factory`, those of the weights are kept."""
    first = next(iter(sd.values()))
    network = network_class.from_shapes(shapes_of(sd), ops, **{"dtype": first.dtype, "device": first.device} | factory)
    network.load_state_dict(sd)
    return network.eval()


def holding(layer_class: Any, tensors: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
    """A layer that holds the given tensors themselves: files stay memory-mapped until a host moves the layer."""
    layer = layer_class(*args, device="meta", dtype=tensors["weight"].dtype, **kwargs)
    layer.load_state_dict(tensors, assign=True)
    return layer
