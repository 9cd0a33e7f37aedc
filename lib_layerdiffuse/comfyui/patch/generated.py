"""What patches of a model tell each other: which layers it generates, and where the object is.

Nodes attach it to the model, and it is read while the model samples, so that their order does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence

from comfy.model_patcher import ModelPatcher
from torch import Tensor

LAYERS, MASKS = "diaphane.layers", "diaphane.object_masks"


def set_layers(model: ModelPatcher, layers: Sequence[str]) -> ModelPatcher:
    """Say which layers `model`, a clone that the caller owns, generates, in the order of its batch. -> the same model."""
    model.set_attachments(LAYERS, tuple(layers))
    return model


def rows_of(model: ModelPatcher, layer: str, count: int) -> list[int] | None:
    """The rows of a batch of `count` that are of this layer; None if no patch has said which layers the model generates."""
    layers = model.get_attachment(LAYERS)
    return None if layers is None else [row for row in range(count) if layers[row % len(layers)] == layer]


class ObjectMask:
    """Where the generated object is, as one patch knows it during the sampling; it is forgotten when the sampling ends."""

    alpha: Tensor | None = None  # [N, 1, H, W] in [0, 1] for N sets of layers, at any size

    def attach(self, model: ModelPatcher) -> None:
        """Show it to the other patches of `model`, a clone that the caller owns."""
        model.set_attachments(MASKS, (*(model.get_attachment(MASKS) or ()), self))


def object_masks(model: ModelPatcher) -> list[Tensor]:
    """What is known at present of where the object is, by all patches that know something."""
    masks: Sequence[ObjectMask] = model.get_attachment(MASKS) or ()
    return [mask.alpha for mask in masks if mask.alpha is not None]
