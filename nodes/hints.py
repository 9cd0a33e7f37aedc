"""What nodes say about pictures and layers that are allowed, but seldom what was meant."""

from __future__ import annotations

from torch import Tensor

from ..lib_layerdiffuse.pixels.composite import Layers
from ..lib_layerdiffuse.pixels.coverage import EVERYTHING
from ..lib_layerdiffuse.pixels.layer_stack import off_canvas

SMALL_FOR_SDXL = 640 * 768  # pixels; it is trained for 1024 x 1024, SD1.5 for 512 x 512


def on_opaque(image: Tensor, mask: Tensor | None) -> list[str]:
    """A hint if nothing in [B, H, W, 3 or 4] is transparent. mask: what was connected beside it."""
    if image.shape[-1] == 4 and bool((image[..., 3] < EVERYTHING).any()):
        return []
    if mask is None:
        way_out = "connect rgba of Transparent VAE Decode, or the mask of Load Image too"
    else:
        way_out = "its file has no alpha, so take its background off first"
    return [f"Nothing in this picture is transparent. That is right for a background; for a cut-out, {way_out}."]


def on_small_size(height: int, width: int, about_family: str) -> list[str]:
    """A hint if pictures whose family had to be guessed are of a size that is rare for SDXL and usual for SD1.5."""
    return [f"{width}x{height} is small for SDXL. If alpha is wrong, {about_family}."] if height * width < SMALL_FOR_SDXL else []


def on_lost_layers(layers: Layers, above: int = 0) -> list[str]:
    """A hint if layers, from number `above` on, lie beside the canvas."""
    lost = off_canvas(layers, above)
    if not lost:
        return []
    return [
        f"Off the canvas of {layers.width}x{layers.height} and so not to be seen: {', '.join(lost):.200}. "
        "Change x and y in Place Layer: they move the whole picture, transparent parts included."
    ]


def on_layer_with_alpha(layer: str | None) -> list[str]:
    """A hint if a layer that should be opaque is a transparent picture."""
    if layer is None:
        return []
    return [
        f"The {layer} layer is transparent, too: its model was patched for single pictures. Set layers of Empty Layer Latent to "
        "foreground, or patch the model by LayerDiffuse Joint."
    ]
