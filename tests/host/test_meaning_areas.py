"""The mini family with a noise mask: an object comes where it is asked for, and what was not to change stays."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_layerdiffuse.comfyui.alpha.alpha_vae import COLOURS, NETWORK, PICTURE, AlphaVAE
from lib_layerdiffuse.comfyui.models.mini import load_mini
from lib_layerdiffuse.comfyui.recipes.transparent import make_transparent
from lib_layerdiffuse.pixels.premultiplied import premultiply
from lib_layerdiffuse.weights.catalogue import Family
from training.data.colours import COLOURS as COLOURS_OF_SPRITES
from training.data.shapes import SHAPES
from training.data.sprites import SOLID, draw_sprites, paint

from .reference import as_the_host_runs

core: Any = importlib.import_module("nodes")  # ComfyUI's own module
masks: Any = importlib.import_module("comfy_extras.nodes_mask")

COUNT, SIDE, STEPS, GUIDANCE = 4, 128, 10, 2.5


@pytest.fixture(scope="module", autouse=True)
def _host() -> Iterator[None]:
    with as_the_host_runs():
        yield


@pytest.fixture(scope="module")
def mini() -> tuple[Any, Any, Any]:
    return load_mini()


def sampled(mini: tuple[Any, Any, Any], latent: dict[str, Any], prompt: str, seed: int) -> dict[str, Any]:
    model, clip, _ = mini
    text, nothing = ([[clip.encode_from_tokens(clip.tokenize(words)), {}]] for words in (prompt, ""))
    return core.common_ksampler(make_transparent(model), seed, STEPS, GUIDANCE, "dpmpp_2m", "normal", text, nothing, latent)[0]


def area(top: int, bottom: int, left: int, right: int) -> Tensor:
    mask = torch.zeros(1, SIDE, SIDE)
    mask[:, top:bottom, left:right] = 1.0
    return mask


def test_an_object_is_painted_into_the_area(node_classes: dict[str, Any], mini: tuple[Any, Any, Any]) -> None:
    here = area(56, 120, 56, 120)
    shares = {}
    for name, mask in (("here", here), ("anywhere", None), ("unpainted", torch.zeros_like(here))):
        inputs = {"vae": mini[2], "width": SIDE, "height": SIDE, "batch_size": COUNT, "family": "auto", "area": mask}
        made = node_classes["DiaphaneEmptyTransparent"].execute(**inputs)
        assert ["noise_mask" in made[0], bool(made.ui["text"])] == [name == "here", name == "unpainted"]
        if name != "unpainted":
            alpha = AlphaVAE(mini[2], Family.SD15).decode(sampled(mini, made[0], "a red heart", 300), passes=1).rgba[..., 3]
            assert (alpha.sum(dim=(1, 2)) > 0.1 * here.sum()).all()
            shares[name] = (alpha * here).sum(dim=(1, 2)) / alpha.sum(dim=(1, 2))
    assert shares["here"].min() >= 0.85 and shares["anywhere"].median() <= 0.6


def test_what_was_not_retouched_keeps_its_colours(mini: tuple[Any, Any, Any]) -> None:
    """The transparency decoder looks at the whole picture, the VAE hardly does; what is put back does not change at all."""
    vae = AlphaVAE(mini[2], Family.SD15)
    star = [torch.full((COUNT,), index) for index in (SHAPES.index("star"), COLOURS_OF_SPRITES.index("yellow"), SOLID)]
    before = vae.encode(paint(draw_sprites(*star, torch.Generator().manual_seed(7001)), SIDE).movedim(1, -1))
    right = area(0, SIDE, SIDE // 2, SIDE)
    after = sampled(mini, before | {"noise_mask": right}, "a purple star", 200)
    changes = {}
    for colour in COLOURS:
        old, new = (vae.decode(latent, passes=1, colour=colour).rgba for latent in (before, after))
        left = [premultiply(picture)[:, :, : SIDE // 2, :3] for picture in (old, new)]
        changes[colour] = (left[0] - left[1]).abs().mean()
        [mended] = masks.ImageCompositeMasked.execute(old, new, 0, 0, False, right)
        assert torch.equal(mended[:, :, : SIDE // 2], old[:, :, : SIDE // 2])
        assert torch.equal(mended[:, :, SIDE // 2 :], new[:, :, SIDE // 2 :])
    assert changes[PICTURE] <= 0.6 * changes[NETWORK]
