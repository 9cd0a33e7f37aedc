"""What nodes say about pictures and layers that are allowed, but seldom what was meant."""

from __future__ import annotations

import torch
from torch import Tensor

from ..lib_layerdiffuse.comfyui.files.save_layers import OPENRASTER, PSD
from ..lib_layerdiffuse.comfyui.models.families import FAMILY_IS_GUESSED
from ..lib_layerdiffuse.documents.openraster import OPERATIONS
from ..lib_layerdiffuse.pixels.blend import GRAIN, NORMAL
from ..lib_layerdiffuse.pixels.boxes import Box
from ..lib_layerdiffuse.pixels.composite import PHOTOSHOP, Layers
from ..lib_layerdiffuse.pixels.coverage import EVERYTHING, coverage
from ..lib_layerdiffuse.pixels.layer_stack import off_canvas

SMALL_FOR_SDXL = 640 * 768  # pixels; it is trained for 1024 x 1024, SD1.5 for 512 x 512
NEARLY_ALL = 0.999
MOSTLY = 0.95
A_FEW = 0.05  # more than the soft edges of a cut-out
FOR_OPAQUE = "prompt a plain background; raise the weight of LayerDiffuse Transparent, or use its conv method"
FOR_TRANSPARENT = "use a negative prompt; lower the weight"
FOR_TRANSLUCENT = "patch the model by LayerDiffuse Transparent; connect the VAE of the model that sampled"


def on_opaque(image: Tensor, mask: Tensor | None) -> list[str]:
    """A hint if nothing in [B, H, W, 3 or 4] is transparent. mask: what was connected beside it."""
    if image.shape[-1] == 4 and bool((image[..., 3] < EVERYTHING).any()):
        return []
    if mask is None:
        way_out = "connect rgba of Transparent VAE Decode, or the mask of Load Image too"
    else:
        way_out = "its file has no alpha, so take its background off first"
    return [f"Nothing in this picture is transparent. That is right for a background; for a cut-out, {way_out}."]


def on_odd_alpha(rgba: Tensor, about_family: str | None) -> list[str]:
    """What helps when pictures [B, H, W, 4] that should be transparent in part are not. about_family: `AlphaVAE.advice`."""
    shares = [coverage(picture) for picture in rgba.split(1)]
    said = []
    for helps, picked in (
        (FOR_OPAQUE, [share.opaque > NEARLY_ALL for share in shares]),
        (FOR_TRANSPARENT, [share.transparent > NEARLY_ALL for share in shares]),
        (FOR_TRANSLUCENT, [share.partial > MOSTLY for share in shares]),
    ):
        if any(picked):
            which = "The picture is" if len(rgba) == 1 else f"{sum(picked)} of {len(rgba)} pictures:"
            what = f"{about_family}; {helps}" if about_family else helps
            if helps is FOR_OPAQUE and not all(picked):
                what += "; if LayerDiffuse Joint patched the model, set layers of Empty Layer Latent to what it generates"
            said.append(f"{which} {coverage(rgba[torch.tensor(picked)])}. What helps: {what}.")
    return said


def on_small_size(height: int, width: int, about_family: str | None) -> list[str]:
    """A hint if pictures whose family had to be guessed are of a size that is rare for SDXL and usual for SD1.5."""
    if about_family != FAMILY_IS_GUESSED or height * width >= SMALL_FOR_SDXL:
        return []
    return [f"{width}x{height} is small for SDXL. If alpha is wrong, {about_family}."]


def place_of(name: str, box: Box, outside: float, known: bool) -> str:
    """Where a layer is seen. known: whether its canvas is, so that the share outside means something."""
    share = f", {outside:.0%} of it outside the canvas" if known and outside else ""
    return f"{name}: {box}{share}."


def on_nothing_painted(area: Tensor | None) -> list[str]:
    """A hint if an area, 1 = here, is connected and nowhere."""
    if area is None or bool(area.any()):
        return []
    return ["Nothing is painted in area, so the object may be anywhere. Paint where it belongs."]


def on_lost_layers(layers: Layers, above: int = 0) -> list[str]:
    """A hint if layers, from number `above` on, lie beside the canvas."""
    lost = off_canvas(layers, above)
    if not lost:
        return []
    return [
        f"Off the canvas of {layers.width}x{layers.height} and so not to be seen: {', '.join(lost):.200}. "
        "Change x and y in Place Layer. With its canvas connected, it shows where the layer lies."
    ]


def on_editor_blending(layers: Layers) -> list[str]:
    """A hint if ComfyUI's layer editor shows the layers otherwise than Photoshop does."""
    if not _depends_on_blending(layers):
        return []
    return [
        "ComfyUI's editor shows translucent parts lighter, and most blend modes otherwise. To see that here, set blending of "
        "Composite Layers."
    ]


def on_flat_picture(layers: Layers, form: str, blending: str) -> list[str]:
    """A hint if a paint program shows the layers of a file otherwise than the flat picture in it."""
    if form not in (PSD, OPENRASTER) or blending == PHOTOSHOP or not _depends_on_blending(layers):
        return []
    return ["The flat picture is as ComfyUI's editor shows it. Paint programs mix the layers of the file in their own way."]


def _depends_on_blending(layers: Layers) -> bool:
    return any(
        layer.visible
        and (layer.mode != NORMAL or layer.opacity < 1.0 or (layer.image.shape[-1] == 4 and coverage(layer.image).partial > A_FEW))
        for layer in layers.layers
    )


def on_modes_of_files(layers: Layers, form: str) -> list[str]:
    """What other programs do not take over of the blend modes in a file of this format."""
    if form == OPENRASTER:
        foreign = {mode for mode, operation in OPERATIONS.items() if operation.startswith("krita:")}
        where = "In OpenRaster files only Krita knows {}; other programs show such layers as normal. PSD files have most modes."
    else:
        foreign = GRAIN if form == PSD else set()
        where = "PSD files have no {}: such layers are saved as normal. OpenRaster keeps these modes for Krita."
    used = dict.fromkeys(layer.mode for layer in layers.layers if layer.mode in foreign)
    return [where.format(" and ".join(used))] if used else []


def on_layer_with_alpha(layer: str | None) -> list[str]:
    """A hint if a layer that should be opaque is a transparent picture."""
    if layer is None:
        return []
    return [
        f"The {layer} layer is transparent, too: its model was patched for single pictures. Set layers of Empty Layer Latent to "
        "foreground, or patch the model by LayerDiffuse Joint."
    ]
