"""What a layered file holds: layers in groups, with masks and clipping, and the flat stack that is made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from ..errors import DiaphaneError
from ..pixels.blend import NORMAL
from ..pixels.clipping import as_one, clipped_to, clipped_together, masked
from ..pixels.composite import Layer, Layers
from ..pixels.coverage import EVERYTHING, NOTHING

APART = "take apart"
MERGE = "merge"
GROUPS = (APART, MERGE)
LONGEST_SIDE = 300_000  # of a PSB document
MOST_PIXELS = 1 << 28  # 16384 x 16384, the largest canvas of ComfyUI
SAVE_AGAIN = "Open it in a paint program and save it again."

# What cannot be kept, before the names of the layers that it is about.
UNKNOWN_MODE = "A blend mode that is not known here is taken as normal"
EMPTY = "Without pixels and so left out (adjustments, gradients, patterns, empty layers)"
GROUP_OPACITY = "The opacity of a group is given to each layer in it, which shows where they overlap (merge groups to keep it)"
GROUP_MODE = "The blend mode of a group is given to its normal layers (merge groups to keep it)"
GROUP_ISOLATED = "Blends with all that is below it, in the file only within its group (merge groups to keep it)"
GROUP_BACKDROP = "Merged without what is below the group, which its layers blend with in the file (take groups apart to keep it)"
SOFT_CLIPPING = "Clipped to a layer that is soft, translucent or blended, so edges differ a little (merge groups to keep them)"
CLIPPED_TO_NOTHING = "Clipped to a layer without a picture and so not clipped"


class Notes:
    """What could not be kept, each with the names of the layers that it is about."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, None]] = {}  # in order, each name once

    def add(self, text: str, name: str = "") -> None:
        self._found.setdefault(text, {})[name] = None

    def lines(self) -> list[str]:
        named = {text: ", ".join(filter(None, names)) for text, names in self._found.items()}
        return [f"{text}: {names:.200}." if names else f"{text}." for text, names in named.items()]


@dataclass(frozen=True)
class Mask:
    """[1, h, w] at (x, y) of the canvas, 1 = visible; `outside` is its value elsewhere."""

    values: Tensor
    x: int
    y: int
    outside: float


@dataclass(frozen=True)
class Part:
    """A layer of a document, or a group, whose parts are the lowest first.

    picture reads a layer's pixels when they are needed: (image [1, H, W, 3 or 4], x, y), or None if there are none. A group that
    passes through is only a folder: its layers blend with what is below it. A clipped part shows only where the nearest part below it
    that is not clipped does.
    """

    name: str
    mode: str = NORMAL
    opacity: float = 1.0
    visible: bool = True
    clipped: bool = False
    passes_through: bool = False
    mask: Callable[[], Mask] | None = None
    picture: Callable[[], tuple[Tensor, int, int] | None] | None = None
    parts: tuple[Part, ...] = ()


@dataclass
class Document:
    height: int
    width: int
    parts: tuple[Part, ...]
    notes: Notes = field(default_factory=Notes)
    before_each: Callable[[], None] = lambda: None  # called before a layer is read; raises to end it all

    def layers(self, groups: str) -> Layers:
        """The layers, the lowest first. groups: one of GROUPS. Raises DiaphaneError if there is none."""
        found = tuple(self._merged(self.parts) if groups == MERGE else self._apart(self.parts))
        if not found:
            raise DiaphaneError("there is no layer with a picture in it. Rasterize what should be one in a paint program.")
        return Layers(self.height, self.width, tuple(_without_needless_alpha(layer) for layer in found))

    def _apart(self, parts: Sequence[Part]) -> Iterator[Layer]:
        """Each layer by itself, with what its groups do to it."""
        base: list[Layer] = []
        for part in parts:
            if part.picture:
                layer = self._read(part)
                found = [] if layer is None else [layer]
            else:
                found = self._of_group(part, list(self._apart(part.parts)))
            if part.clipped:
                found = [self._clipped(layer, base) for layer in found]
            else:
                base = found
            yield from found

    def _of_group(self, group: Part, layers: Sequence[Layer]) -> list[Layer]:
        result = []
        mask = group.mask() if group.mask else None
        for layer in layers:
            mode, visible = layer.mode, layer.visible and group.visible
            if group.mode != NORMAL and mode == NORMAL:
                mode = group.mode
                self.notes.add(GROUP_MODE, group.name)
            elif visible and mode != NORMAL and not group.passes_through:
                self.notes.add(GROUP_ISOLATED, layer.name)
            layer = replace(layer, mode=mode, opacity=layer.opacity * group.opacity, visible=visible)
            result.append(layer if mask is None else masked(layer, mask.values, mask.x, mask.y, mask.outside))
        if group.opacity < 1.0 and sum(layer.visible for layer in result) > 1:
            self.notes.add(GROUP_OPACITY, group.name)
        return result

    def _clipped(self, layer: Layer, below: Sequence[Layer]) -> Layer:
        """A layer that shows only where another does, or a group."""
        base = below[0] if len(below) == 1 else as_one(below, self.height, self.width)
        if base is None:
            self.notes.add(CLIPPED_TO_NOTHING, layer.name)
            return layer
        if base.mode != NORMAL or base.opacity < 1.0 or _is_soft(base.image):
            self.notes.add(SOFT_CLIPPING, layer.name)
        return replace(clipped_to(layer, base), visible=layer.visible and any(other.visible for other in below))

    def _merged(self, parts: Sequence[Part]) -> Iterator[Layer]:
        """Each group as one layer, and each layer together with those that are clipped to it."""
        base: Layer | None = None
        clipped: list[Layer] = []
        for part in parts:
            own = self._read(part) if part.picture else self._one_of_group(part)
            if not part.clipped:
                if base is not None:
                    yield clipped_together(base, clipped) if clipped else base
                base, clipped = own, []
            elif base is not None and own is not None:
                clipped.append(own)
            elif own is not None:
                self.notes.add(CLIPPED_TO_NOTHING, own.name)
                yield own
        if base is not None:
            yield clipped_together(base, clipped) if clipped else base

    def _one_of_group(self, group: Part) -> Layer | None:
        layers = list(self._merged(group.parts))
        merged = as_one(layers, self.height, self.width)
        if merged is None:
            return None
        if group.passes_through and any(layer.visible and layer.mode != NORMAL for layer in layers):
            self.notes.add(GROUP_BACKDROP, group.name)
        return self._as_part(group, merged)

    def _read(self, part: Part) -> Layer | None:
        self.before_each()
        found = part.picture() if part.picture else None
        if found is None:
            self.notes.add(EMPTY, part.name)
            return None
        image, x, y = found
        return self._as_part(part, Layer(image, x=x, y=y))

    def _as_part(self, part: Part, layer: Layer) -> Layer:
        if part.mask:
            mask = part.mask()
            layer = masked(layer, mask.values, mask.x, mask.y, mask.outside)
        return replace(layer, name=part.name, mode=part.mode, opacity=part.opacity, visible=part.visible)


def check_size(height: int, width: int) -> None:
    """Raises DiaphaneError for a picture that is empty or larger than anything is, before memory is asked for."""
    if not (0 < height <= LONGEST_SIDE and 0 < width <= LONGEST_SIDE and height * width <= MOST_PIXELS):
        raise DiaphaneError(
            f"it says that it holds {width}x{height} pixels; at least one and at most {MOST_PIXELS >> 20} megapixels are read. "
            "Change its size in a paint program."
        )


def _is_soft(image: Tensor) -> bool:
    alpha = image[..., 3:]
    return bool(((alpha > NOTHING) & (alpha < EVERYTHING)).any())


def _without_needless_alpha(layer: Layer) -> Layer:
    """An opaque picture has three channels, as a background has in this pack."""
    opaque = layer.image.shape[-1] == 4 and bool((layer.image[..., 3] >= 1.0).all())
    return replace(layer, image=layer.image[..., :3].contiguous()) if opaque else layer
