"""Layers of the mini family, painted in ComfyUI: they fit together, and each shows what its own prompt says."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_layerdiffuse.comfyui.alpha.split import decode_and_split
from lib_layerdiffuse.comfyui.models.mini import load_mini
from lib_layerdiffuse.comfyui.recipes.joint import make_joint, make_joint_from_layer
from lib_layerdiffuse.comfyui.recipes.transparent import make_transparent
from lib_layerdiffuse.pixels.composite import Layer, composite
from training.data.procedural import LayerBatch, layers
from training.judge import judge
from training.losses import psnr

from .reference import as_the_host_runs

core: Any = importlib.import_module("nodes")  # ComfyUI's own module

SETS, SIDE, STEPS, GUIDANCE = 24, 128, 20, 2.5
JOINT = ("foreground", "background", "blended")


@pytest.fixture(scope="module", autouse=True)
def _host() -> Iterator[None]:
    with as_the_host_runs():
        yield


@pytest.fixture(scope="module")
def drawn() -> LayerBatch:
    return layers(SETS, SIDE, torch.Generator().manual_seed(9001))


def paint(model: Any, clip: Any, vae: Any, names: tuple[str, ...], captions: dict[str, list[str]], seed: int) -> dict[str, Tensor]:
    """Sets of layers with their own prompts -> {layer: pictures}."""
    rows = [captions[name][i] for i in range(len(captions[names[0]])) for name in names]
    return decode_and_split(sampled(model, clip, rows, seed), vae, None, layers=", ".join(names), passes=8)[0]


def sampled(model: Any, clip: Any, rows: list[str], seed: int) -> dict[str, Any]:
    """A LATENT with a row for each text: the host samples them all at once."""
    text = [[torch.cat([clip.encode_from_tokens(clip.tokenize(row)) for row in rows]), {}]]
    nothing = [[clip.encode_from_tokens(clip.tokenize("")), {}]]
    empty = {"samples": torch.zeros(len(rows), 4, SIDE // 8, SIDE // 8)}
    return core.common_ksampler(model, seed, STEPS, GUIDANCE, "dpmpp_2m", "normal", text, nothing, empty)[0]


def likeness(a: Tensor, b: Tensor) -> float:
    """The median over the pictures, in dB."""
    return float(psnr(a[..., :3], b[..., :3]).median())


def over(background: Tensor, foreground: Tensor) -> Tensor:
    return composite([Layer(background[..., :3]), Layer(foreground)], SIDE, SIDE)


def captions_of(drawn: LayerBatch) -> dict[str, list[str]]:
    return dict(zip(JOINT, (drawn.foreground_captions, drawn.background_captions, drawn.blended_captions), strict=True))


def test_joint_layers_fit_and_obey_their_own_prompts(drawn: LayerBatch) -> None:
    model, clip, vae = load_mini()
    found = paint(make_joint(model), clip, vae, JOINT, captions_of(drawn), seed=5)
    assert likeness(found["blended"], over(found["background"], found["foreground"])) >= 25
    verdicts = judge(found["foreground"].movedim(-1, 1))
    shown = [v.shape in caption and v.colour in caption for v, caption in zip(verdicts, drawn.foreground_captions, strict=True)]
    assert sum(shown) >= 0.8 * SETS
    # By its mean colour alone a background is the one of 24 that was asked for far more often than by chance.
    means = drawn.background.mean(dim=(2, 3))
    nearest = torch.cdist(found["background"].mean(dim=(1, 2)), means).argmin(dim=1)
    assert (nearest == torch.arange(SETS)).float().mean() >= 0.25


@pytest.mark.parametrize(("given", "least"), [("foreground", 22), ("background", 25)])
def test_the_given_layer_is_kept(drawn: LayerBatch, given: str, least: float) -> None:
    model, clip, vae = load_mini()
    names = tuple(name for name in JOINT if name != given)
    values = []
    for i in range(8):
        picture = (drawn.foreground if given == "foreground" else drawn.background)[i : i + 1].movedim(1, -1)
        rgba = picture if picture.shape[-1] == 4 else torch.cat([picture, torch.ones_like(picture[..., :1])], dim=-1)
        one = {name: texts[i : i + 1] for name, texts in captions_of(drawn).items()}
        found = paint(make_joint_from_layer(model, rgba, given), clip, vae, names, one, seed=i)
        expected = over(found["background"], rgba) if given == "foreground" else over(rgba, found["foreground"])
        values.append(likeness(found["blended"], expected))
    assert sorted(values)[4] >= least


@pytest.mark.parametrize(("patch", "says"), [(make_transparent, True), (make_joint, False)])
@pytest.mark.parametrize("node", ["DiaphaneVAEDecode", "DiaphaneSplitLayers"])
def test_a_model_for_one_layer_that_sampled_three_is_noticed(node_classes: dict[str, Any], node: str, patch: Any, says: bool) -> None:
    model, clip, vae = load_mini()
    captions = {"foreground": "a red glass heart", "background": "a green meadow", "blended": "a red glass heart on a green meadow"}
    latent = sampled(patch(model), clip, [captions[name] if patch is make_joint else captions["foreground"] for name in JOINT], seed=3)
    inputs = {"VAEDecode": {"family": "auto", "tile_size": 0}, "SplitLayers": {"layers": "auto"}}[node.removeprefix("Diaphane")]
    output = node_classes[node].execute(samples={**latent, "layers": JOINT}, vae=vae, passes=1, **inputs)
    said = " ".join(output.ui["text"])
    assert ("The background layer is transparent, too" in said and "Empty Layer Latent" in said) if says else said == ""
