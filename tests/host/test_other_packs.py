"""Nodes of other packs that drop alpha on their way, and the ways round that the help of Transparent VAE names.

Each stand-in does to pictures what such a node does, and no more: cut them to RGB, work on a part or in tiles, paste in RGB.
"""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dev.stand_ins.upscaler import Upscaler
from lib_layerdiffuse.pixels.straight import with_alpha

from .reference import as_the_host_runs

core: Any = importlib.import_module("nodes")  # ComfyUI's own module
core_upscale: Any = importlib.import_module("comfy_extras.nodes_upscale_model")

NodeClasses = dict[str, Any]
SIDE, STEPS, GUIDANCE = 128, 12, 2.5
PROMPTS = ("a blue glass star", "a red heart")
AWAY = 0.03  # mean difference of alpha that passes for none
LOST = 0.15


def run(node_classes: NodeClasses, node: str, /, **inputs: Any) -> Any:
    return node_classes[f"Diaphane{node}"].execute(**inputs).result


@dataclass(frozen=True)
class Painted:
    """Objects on nothing as the mini models paint them, and what painted them."""

    model: Any
    vae: Any
    transparent_vae: Any
    prompt: Any
    nothing: Any
    samples: Any
    rgba: Tensor
    rgb: Tensor
    mask: Tensor

    def second_pass(self, latent: Tensor, denoise: float = 0.3) -> Tensor:
        done = core.common_ksampler(
            self.model, 1, STEPS // 3, GUIDANCE, "euler", "normal", self.prompt, self.nothing, {"samples": latent}, denoise=denoise
        )
        return done[0]["samples"]


@pytest.fixture(scope="module")
def painted(node_classes: NodeClasses) -> Iterator[Painted]:
    with as_the_host_runs():
        model, clip, vae = run(node_classes, "Mini")
        [model] = run(node_classes, "Transparent", model=model, method="auto", weight=1.0, start=0.0, end=1.0)
        [prompt] = [[[torch.cat([clip.encode_from_tokens(clip.tokenize(text)) for text in PROMPTS]), {}]]]
        nothing = [[clip.encode_from_tokens(clip.tokenize("")), {}]]
        [empty] = run(node_classes, "EmptyLayers", width=SIDE, height=SIDE, layers="foreground", sets=len(PROMPTS))
        [samples] = core.common_ksampler(model, 3, STEPS, GUIDANCE, "euler", "normal", prompt, nothing, empty)
        rgba, rgb, mask = decoded(node_classes, samples, vae)
        [transparent_vae] = run(node_classes, "VAE", vae=vae, family="auto", passes=8, offset_scale=300.0)
        yield Painted(model, vae, transparent_vae, prompt, nothing, samples, rgba, rgb, mask)


def decoded(node_classes: NodeClasses, samples: Any, vae: Any, images: Tensor | None = None) -> Any:
    return run(node_classes, "VAEDecode", samples=samples, vae=vae, images=images, family="auto", passes=8, tile_size=0)


def alpha_away(painted: Painted, rgba: Tensor) -> float:
    """Mean difference from the alpha that was painted, at the size of the result."""
    size = rgba.shape[1:3]
    expected = F.interpolate(painted.rgba[None, ..., 3], size=size, mode="bilinear")[0] if size != (SIDE, SIDE) else painted.rgba[..., 3]
    return float((rgba[..., 3] - expected).abs().mean())


# --- stand-ins -------------------------------------------------------------------------------------------------------------------------


def detailer(painted: Painted, image: Tensor, vae: Any) -> Tensor:
    """As Impact Pack's detailers: a crop, cut to RGB, is sampled again and pasted back in RGB."""
    result = image[..., :3].clone()
    part = slice(16, 112)
    latent = vae.encode(result[:, part, part])
    result[:, part, part] = vae.decode(painted.second_pass(latent))[..., :3]
    return result


def tiled_upscaler(painted: Painted, image: Tensor, vae: Any) -> Tensor:
    """As Ultimate SD Upscale: enlarged, sampled again tile by tile, each pasted into an RGB picture of PIL."""
    large = F.interpolate(image.movedim(-1, 1), scale_factor=2, mode="bicubic").movedim(1, -1).clamp(0.0, 1.0)
    sheets = [Image.fromarray((picture.numpy() * 255).round().astype(np.uint8)).convert("RGB") for picture in large]
    for top in range(0, 2 * SIDE, SIDE):
        for left in range(0, 2 * SIDE, SIDE):
            box = (left, top, left + SIDE, top + SIDE)
            tiles = torch.stack([torch.from_numpy(np.array(sheet.crop(box))) for sheet in sheets]) / 255.0
            pixels = vae.decode(painted.second_pass(vae.encode(tiles)))
            for sheet, tile in zip(sheets, pixels, strict=True):
                sheet.paste(Image.fromarray((tile.numpy() * 255).round().astype(np.uint8)).convert("RGB"), box)
    return torch.stack([torch.from_numpy(np.array(sheet)) for sheet in sheets]) / 255.0


def cutting_encoder(image: Tensor, vae: Any) -> dict[str, Tensor]:
    """As AnimateDiff-Evolved, Advanced-ControlNet, Efficiency and Easy-Use encode pictures."""
    return {"samples": vae.encode(image[:, :, :, :3])}


# --- what is lost, and what keeps it ---------------------------------------------------------------------------------------------------


def test_a_detailer_loses_alpha_whatever_vae_it_gets(painted: Painted, node_classes: NodeClasses) -> None:
    done = detailer(painted, painted.rgba, painted.transparent_vae)
    assert done.shape[-1] == 3
    [again, *_] = decoded(node_classes, painted.samples, painted.vae, done)
    assert alpha_away(painted, again) > LOST


@pytest.mark.parametrize("other", [detailer, tiled_upscaler])
def test_colour_goes_through_and_alpha_is_put_back(painted: Painted, other: Any) -> None:
    """`rgb` and the ordinary VAE for the other node, then Join Image with Alpha."""
    done = with_alpha(other(painted, painted.rgb, painted.vae), painted.mask)
    assert alpha_away(painted, done) < AWAY
    before = F.interpolate(painted.rgba.movedim(-1, 1), size=done.shape[1:3], mode="bilinear").movedim(1, -1)
    changed = float(((done - before)[..., :3].abs() * before[..., 3:]).sum() / (3 * before[..., 3].sum()))
    assert 0.001 < changed < 0.1, "worked on, and still the same object"


def test_alpha_is_estimated_anew_from_a_picture_on_its_grey_ground(painted: Painted, node_classes: NodeClasses) -> None:
    """VAE Decode and the ordinary VAE for the other node, its result into `images`. Not `rgb`: colour all over counts as opaque."""
    for pictures, kept in ((painted.vae.decode(painted.samples["samples"]), True), (painted.rgb, False)):
        [again, *_] = decoded(node_classes, painted.samples, painted.vae, detailer(painted, pictures, painted.vae))
        away = alpha_away(painted, again)
        assert away < AWAY if kept else away > LOST, away


def test_an_encoder_that_cuts_to_rgb_makes_opaque_latents(painted: Painted, node_classes: NodeClasses) -> None:
    cut = cutting_encoder(painted.rgba, painted.transparent_vae)
    assert alpha_away(painted, painted.transparent_vae.decode(cut["samples"])) > LOST
    [whole] = run(node_classes, "VAEEncode", image=painted.rgba, vae=painted.vae, family="auto", offset_scale=300.0)
    assert alpha_away(painted, painted.transparent_vae.decode(whole["samples"])) < AWAY


def test_a_second_pass_by_nodes_that_leave_pictures_alone_keeps_alpha(painted: Painted) -> None:
    vae = painted.transparent_vae
    assert alpha_away(painted, vae.decode(painted.second_pass(vae.encode(painted.rgba)))) < AWAY


def test_upscaling_models_see_three_channels(painted: Painted, node_classes: NodeClasses) -> None:
    """Newer ComfyUIs take alpha apart by themselves; those that this runs on do not."""
    model = Upscaler()
    with pytest.raises(RuntimeError, match="size|channels"):
        core_upscale.ImageUpscaleWithModel.execute(model, painted.rgba)
    [large] = run(node_classes, "Upscale", upscale_model=model, image=painted.rgba, mask=None)
    assert large.shape == (len(PROMPTS), model.scale * SIDE, model.scale * SIDE, 4)
