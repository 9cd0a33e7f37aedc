"""A device other than the CPU, for machines that have none.

Fake tensors know their shape, type and device, and refuse to meet a tensor of another device, as real ones do. They hold no values, so that
what takes a card gigabytes takes nothing here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Fake tensors of Apple's or Intel's devices need a torch that is built for them. What differs there is forbidden below.
DEVICE = torch.device("cuda", 0)
MODE = FakeTensorMode()  # one for all: what is built in one block serves another
DOUBLE = (torch.float64, torch.complex128)

aten = torch.ops.aten


class Rules(TorchDispatchMode):
    """What not every device can do is an error: numbers of 64 bits, as on Apple's. Code that asks for a value is told 1."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func is aten._local_scalar_dense.default:
            return 1.0 if args[0].is_floating_point() else 1
        if func is aten.nonzero.default:
            return torch.empty(2, args[0].ndim, dtype=torch.long, device=args[0].device)
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.device.type != "cpu" and tensor.dtype in DOUBLE:
                raise TypeError(f"{func} makes {tensor.dtype} on {tensor.device}: not every device has numbers of 64 bits.")
        return result


@contextmanager
def elsewhere() -> Iterator[None]:
    """In this block tensors are fake, and those of DEVICE keep its rules."""
    with MODE, Rules(), torch.no_grad():
        yield


def fake(*shape: int, dtype: torch.dtype = torch.float32, device: torch.device = DEVICE) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device=device)
