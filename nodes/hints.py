"""What nodes say about pictures and layers that are allowed, but seldom what was meant."""

from __future__ import annotations

from torch import Tensor

from ..lib_layerdiffuse.host.layer_stack import off_canvas
from ..lib_layerdiffuse.pixels.composite import Layers
from ..lib_layerdiffuse.pixels.coverage import EVERYTHING


def on_opaque(image: Tensor, mask: Tensor | None) -> list[str]:
    """A hint if nothing in [B, H, W, 3 or 4] is transparent. mask: what was connected beside it."""
    if image.shape[-1] == 4 and bool((image[..., 3] < EVERYTHING).any()):
        return []
    if mask is None:
        way_out = "connect rgba of Transparent VAE Decode, or the mask of Load Image too"
    else:
        way_out = "its file has no alpha, so take its background off first"
    return [f"Nothing in this picture is transparent. That is right for a background; for a cut-out, {way_out}."]


def on_lost_layers(layers: Layers, above: int = 0) -> list[str]:
    """A hint if layers, from number `above` on, lie beside the canvas."""
    lost = off_canvas(layers, above)
    if not lost:
        return []
    return [
        f"Off the canvas of {layers.width}x{layers.height} and so not to be seen: {', '.join(lost)}. "
        "Change x and y in Place Layer: they move the whole picture, transparent parts included."
    ]
