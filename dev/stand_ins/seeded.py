"""Made-up weights that anyone can regenerate: a tensor is a pure function of seed, key and shape."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def seeded_noise(key: str, shape: Sequence[int], seed: int = 0) -> Tensor:
    """Standard normal noise, float32, different for every key and seed."""
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
    return torch.from_numpy(generator.standard_normal(size=tuple(shape), dtype=np.float32))


def seeded_weight(key: str, shape: Sequence[int], seed: int = 0) -> Tensor:
    """A weight that keeps activations near unit scale: small biases, norms near 1, the rest N(0, 1 / fan_in)."""
    noise = seeded_noise(key, shape, seed)
    if key.endswith("bias"):
        return noise * 0.05
    if len(shape) < 2:
        return 1.0 + noise * 0.1
    return noise / math.sqrt(math.prod(shape[1:]))


def seeded_weights(shapes: Mapping[str, Sequence[int]], seed: int = 0) -> dict[str, Tensor]:
    """A state dict of `seeded_weight`s for a {key: shape} table."""
    return {key: seeded_weight(key, shape, seed) for key, shape in shapes.items()}
