"""Shadows are found in pictures that have passed through the mini family's VAE, whose errors are no plain noise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from lib_layerdiffuse.comfyui.models.mini import load_mini
from lib_layerdiffuse.pixels.composite import Layer, composite
from lib_layerdiffuse.pixels.shadow import drop_shadow
from lib_layerdiffuse.pixels.shadow_layer import HIDDEN, shadow_layer
from training.data.procedural import layers

from .reference import as_the_host_runs

COUNT, SIDE = 24, 128


@pytest.fixture(scope="module", autouse=True)
def _host() -> Iterator[None]:
    with as_the_host_runs():
        yield


def test_shadows_are_found_after_the_vae() -> None:
    vae = load_mini()[2]
    drawn = layers(COUNT, SIDE, torch.Generator().manual_seed(9002))
    photo, sprites = drawn.background.movedim(1, -1), drawn.foreground.movedim(1, -1)
    cast = torch.cat([composite([drop_shadow(Layer(one[None]), 8, 8, 8.0, 0.0, (0.0, 0.0, 0.0), 0.5)], SIDE, SIDE) for one in sprites])

    def blended(*between: Layer) -> Tensor:
        picture = composite([Layer(photo), *between, Layer(sprites)], SIDE, SIDE)
        return vae.decode(vae.encode(picture)).float().clamp(0.0, 1.0).to(photo)

    visible = sprites[..., 3] < HIDDEN
    shadow, _ = shadow_layer(photo, sprites, blended(Layer(cast)))
    error = (shadow[..., 3] - cast[..., 3]).abs()[visible].mean()
    assert error <= 0.03 and cast[..., 3][visible].mean() > 2.0 * error  # the control: no shadow
    for found in shadow_layer(photo, sprites, blended()):
        assert found[..., 3].mean() <= 0.03  # over eight seeds 0.01, and up to 0.02
