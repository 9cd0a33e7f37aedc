"""What was drawn for a batch of pictures."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeVar

from torch import Tensor

Kind = TypeVar("Kind", bound="Drawn")


@dataclass(frozen=True)
class Drawn:
    """Every field of a subclass is a tensor whose first dimension is the batch."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def rows(self: Kind, which: slice | Tensor) -> Kind:
        return type(self)(*(getattr(self, field.name)[which] for field in fields(self)))
