"""Whether a file holds all that a network needs, before the network is built from it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ...errors import WeightsError
from ...nets.operations import NetworkClass, shapes_of
from ...weights.keys import check_keys


def check_complete(weights: Mapping[str, Tensor], network_class: NetworkClass[nn.Module], what: str) -> None:
    """Raise WeightsError unless these are exactly the weights that a network of this class needs. what: "a whole …"."""
    shapes = shapes_of(weights)
    try:
        expected = shapes_of(network_class.from_shapes(shapes, device="meta").state_dict())
    except KeyError as error:
        raise WeightsError(f"This is not {what}: it misses {error.args[0]}. Choose another file.") from error
    except (IndexError, ValueError, ArithmeticError, RuntimeError) as error:
        # No network has such shapes: too few dimensions, channels that norms or heads cannot divide, or none at all.
        raise WeightsError(f"This is not {what}: its tensors have impossible shapes. Choose another file.") from error
    check_keys(weights, expected, what)
    for key, shape in expected.items():
        if shapes[key] != shape:
            raise WeightsError(f"This is not {what}: {key} has shape {list(shapes[key])}, {list(shape)} is needed. Choose another file.")
