"""Every pixel function computes on a device that has no numbers of 64 bits, in the types that pictures come in."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import lib_layerdiffuse.pixels
from lib_layerdiffuse.pixels.backdrop import BACKDROPS, over_backdrop
from lib_layerdiffuse.pixels.bleed import bleed_rgb
from lib_layerdiffuse.pixels.blend import BLENDS
from lib_layerdiffuse.pixels.boxes import (
    Box,
    box_around,
    boxes_around,
    boxes_given,
    cut_to,
    each_in_its_box,
    read_boxes,
    visible,
    visible_box,
)
from lib_layerdiffuse.pixels.clipping import as_one, clipped_to, clipped_together, masked, on_canvas
from lib_layerdiffuse.pixels.composite import EDITOR, Layer, Layers, common_batch, composite, inside, paint
from lib_layerdiffuse.pixels.coverage import coverage
from lib_layerdiffuse.pixels.fit import FITS, fit_to
from lib_layerdiffuse.pixels.gaussian import gaussian_blur, reach_of
from lib_layerdiffuse.pixels.layer_stack import (
    as_layers,
    confined,
    in_order,
    named,
    off_canvas,
    stacked,
    thinned,
    whereabouts,
)
from lib_layerdiffuse.pixels.linear_blend import to_linear, to_srgb
from lib_layerdiffuse.pixels.place import OBJECT_FITS, fit_object, place, place_object
from lib_layerdiffuse.pixels.precision import certain_part
from lib_layerdiffuse.pixels.premultiplied import premultiply, resize_rgba, straighten
from lib_layerdiffuse.pixels.repair import alpha_levels, defringe, keep_area, keep_extremes, trim
from lib_layerdiffuse.pixels.shadow import drop_shadow, rgb
from lib_layerdiffuse.pixels.shadow_layer import shadow_layer
from lib_layerdiffuse.pixels.straight import (
    alpha_of,
    check_picture,
    mask_planes,
    off_grey,
    on_grey,
    resize_mask,
    transparency_mask,
    with_alpha,
)
from tests.devices.elsewhere import DEVICE, elsewhere, fake

PICTURES = (((3, 600, 801), torch.float32), ((1, 2048, 2048), torch.float16), ((1, 512, 512), torch.bfloat16))


def stack(rgba: Tensor) -> tuple[Layer, ...]:
    modes = [Layer(rgba, mode=mode, opacity=0.5, x=7, y=-9) for mode in BLENDS]
    return (Layer(rgba[..., :3]), *modes)


def painted(rgba: Tensor) -> Tensor:
    canvas = torch.zeros_like(rgba, dtype=torch.float32)
    paint(canvas, Layer(rgba, x=3, y=3))
    return canvas


# function -> what it does with a picture [B, H, W, 4]
FUNCTIONS: dict[Callable[..., Any], Callable[[Tensor], Any]] = {
    over_backdrop: lambda x: [over_backdrop(x, backdrop) for backdrop in BACKDROPS],
    bleed_rgb: bleed_rgb,
    **{blend: lambda x, blend=blend: blend(x[..., :3], x[..., :3].flip(0)) for blend in BLENDS.values()},
    composite: lambda x: [
        composite(stack(x), *x.shape[1:3]),
        composite(stack(x)[1:3], 64, 64, 8, 16),
        *(composite(layers, *x.shape[1:3], blending=EDITOR) for layers in (stack(x), stack(x)[1:])),
    ],
    to_linear: to_linear,
    to_srgb: to_srgb,
    Layers.flatten: lambda x: Layers(*x.shape[1:3], stack(x)).one(0).flatten(),
    paint: painted,
    as_layers: lambda x: as_layers(x).flatten(),
    stacked: lambda x: stacked(x, [x], x[..., 3]).flatten(),
    confined: lambda x: confined(Layer(x, x=7, y=-9), x[..., 3], *x.shape[1:3]).image,
    off_canvas: lambda x: off_canvas(Layers(*x.shape[1:3], stack(x))),
    masked: lambda x: masked(Layer(x, x=7, y=-9), x[..., 3], 3, 3, 0.5).image,
    clipped_to: lambda x: clipped_to(*stack(x)[1:3]).image,
    clipped_together: lambda x: clipped_together(stack(x)[1], stack(x)[2:4]).image,
    as_one: lambda x: as_one(stack(x)[1:3], 64, 64) is not None,
    on_canvas: lambda x: on_canvas(Layer(x, x=7, y=-9), 64, 64),
    whereabouts: lambda x: whereabouts(Layers(*x.shape[1:3], stack(x))),
    thinned: lambda x: thinned(Layers(*x.shape[1:3], stack(x)), 3).flatten(),
    visible: visible,
    visible_box: visible_box,
    box_around: lambda x: box_around(x[0, ..., 3] > 0.5),
    cut_to: lambda x: cut_to(x, Box(8, 8, 30, 30), 1)[0],
    boxes_around: lambda x: boxes_around(x[..., 3], 100, 100),
    boxes_given: lambda x: boxes_given(None, x[..., 3], 100, 100),
    each_in_its_box: lambda x: [image for image, _ in each_in_its_box(x, [Box(0, 0, 8, 8)])],
    coverage: coverage,
    fit_to: lambda x: [fit_to(x.movedim(-1, 1), 100, 333, how, x.new_zeros(4)) for how in FITS],
    place: lambda x: [place(x, scale, degrees)[0] for scale, degrees in ((0.5, 0.0), (1.0, 90.0), (1.3, 33.0))],
    place_object: lambda x: place_object(x, 3, 4, "centre", 0.5, 33.0)[0],
    fit_object: lambda x: [fit_object(x, Box(3, 4, 40, 50), fit)[0] for fit in OBJECT_FITS],
    certain_part: lambda x: [certain_part(x[..., 3].unsqueeze(1), precision) for precision in (0.0, 0.5, 1.0)],
    premultiply: premultiply,
    straighten: straighten,
    resize_rgba: lambda x: resize_rgba(x, 300, 200),
    alpha_levels: lambda x: alpha_levels(x, 0.1, 0.9, 1.5),
    defringe: lambda x: defringe(x, 2),
    keep_area: lambda x: keep_area(x, fake(1, 64, 64, dtype=x.dtype)),
    keep_extremes: lambda x: keep_extremes(fake(len(x), 64, 64, dtype=x.dtype), x[..., 3]),
    trim: lambda x: trim(x, 1)[0],
    gaussian_blur: lambda x: gaussian_blur(x.movedim(-1, 1), 2.0),
    drop_shadow: lambda x: drop_shadow(Layer(x), 5, 5, 9.0, 0.4, (1.0, 0.5, 0.0), 0.5).image,
    shadow_layer: lambda x: [*shadow_layer(x[..., :3], x, x.flip(0)[:, 1:]), *shadow_layer(x[:1], x, x, 0.0, 0.0)],
    with_alpha: lambda x: with_alpha(x[..., :3], fake(1, 64, 64, dtype=x.dtype)),
    alpha_of: alpha_of,
    check_picture: check_picture,
    mask_planes: lambda x: mask_planes(x[..., 3]),
    resize_mask: lambda x: resize_mask(x[..., 3].unsqueeze(1), 100, 77),
    on_grey: on_grey,
    off_grey: lambda x: off_grey(x[..., :3], x.flip(0)),
    transparency_mask: transparency_mask,
}
NUMBERS_ONLY = {inside, common_batch, in_order, named, read_boxes, rgb, reach_of}  # they see sizes and names, no pixels


def functions() -> Iterator[Any]:
    """Every public function of the pixels, by where it is defined."""
    for info in pkgutil.iter_modules(lib_layerdiffuse.pixels.__path__):
        module = importlib.import_module(f"lib_layerdiffuse.pixels.{info.name}")
        for name, found in vars(module).items():
            if inspect.isfunction(found) and found.__module__ == module.__name__ and not name.startswith("_"):
                yield found


@pytest.mark.parametrize(("size", "dtype"), PICTURES)
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__qualname__)
def test_pixels(function: Callable[..., Any], size: tuple[int, int, int], dtype: torch.dtype) -> None:
    with elsewhere():
        result = FUNCTIONS[function](fake(*size, 4, dtype=dtype))
    for tensor in result if isinstance(result, list) else [result]:
        assert not isinstance(tensor, Tensor) or tensor.device == DEVICE


def test_no_function_is_left_out() -> None:
    assert set(functions()) <= FUNCTIONS.keys() | NUMBERS_ONLY
