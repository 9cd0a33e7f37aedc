"""The mini family's trained brush, in ComfyUI: an object has the outline that it is given, or stays in the box that it is given.

The control is the network that the brush continues, which knows nothing of areas, with the same prompts and seeds.
"""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from lib_layerdiffuse.comfyui.alpha.split import decode_and_split
from lib_layerdiffuse.comfyui.models.mini import load_mini
from lib_layerdiffuse.comfyui.patch.generated import object_masks
from lib_layerdiffuse.comfyui.recipes.joint import make_joint_from_layer
from lib_layerdiffuse.comfyui.recipes.trained_brush import make_trained_brush
from training.data.captions import article, describe, is_held_out, scene_captions
from training.data.colours import COLOURS
from training.data.precision import box
from training.data.procedural import NAMED
from training.data.scenes import draw_scenes, paint_scenes
from training.data.shapes import SHAPES
from training.data.sprites import MATERIALS, draw_sprites, outline
from training.judge import judge
from training.losses import psnr

from .reference import as_the_host_runs

core: Any = importlib.import_module("nodes")  # ComfyUI's own module

SIDE, STEPS, GUIDANCE, MOST = 128, 20, 2.5, 24
INSIDE = {"solid": 0.5, "glass": 0.12, "glow": 0.6}  # alpha from which on a pixel counts as inside of the outline
# What the brush has to reach: IoU with the given outline, share of the object in the given box, IoU of its predicted mask.
EXACT, WITHIN, MASK = 0.75, 0.85, 0.7
logger = logging.getLogger(__name__)


@pytest.fixture(scope="module", autouse=True)
def _host() -> Iterator[None]:
    with as_the_host_runs():
        yield


@dataclass(frozen=True)
class Case:
    """An outline and a background that training never saw, and what is to be painted there."""

    shape: str
    colour: str
    material: str
    outline: Tensor  # [SIDE, SIDE] bool
    background: Tensor  # [1, SIDE, SIDE, 4]
    place: str


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    """MOST of them; of combinations that were held out."""
    generator = torch.Generator().manual_seed(7007)
    kinds: list[list[Tensor]] = []
    while len(kinds) < MOST:
        kind = [torch.randint(count, (1,), generator=generator) for count in (len(SHAPES), len(COLOURS), NAMED)]
        if is_held_out(*kind)[0]:
            kinds.append(kind)
    shape, colour, material = (torch.cat(column) for column in zip(*kinds, strict=True))
    outlines = outline(draw_sprites(shape, colour, material, generator), SIDE)[:, 0]
    scenes = draw_scenes(MOST, generator)
    pictures = torch.nn.functional.pad(paint_scenes(scenes, SIDE).movedim(1, -1), (0, 1), value=1.0)
    return [
        Case(SHAPES[s], COLOURS[c], MATERIALS[m], outlines[i], pictures[i : i + 1], place)
        for i, (s, c, m, place) in enumerate(zip(shape, colour, material, scene_captions(scenes), strict=True))
    ]


def measure(cases: list[Case], how: str, count: int) -> dict[str, float]:
    """Medians over `count` cases; of what is right or wrong, and of what is contained, the means.

    how: "exact" (the outline), "name" (the same, with a prompt that names the shape alone), "box" or "plain" (without an area).
    """
    model, clip, vae = load_mini()
    rows = []
    for seed, case in enumerate(cases[:count], 100):
        area = box(case.outline) if how in ("box", "plain") else case.outline
        masks: list[Tensor] = []
        if how == "plain":
            patched = make_joint_from_layer(model, case.background, "background")
        else:
            patched = make_trained_brush(model, vae, case.background, area.float(), 0.0 if how == "box" else 1.0)
            look_at_masks(patched, masks)
        name = article(case.shape) if how == "name" else describe(case.shape, case.colour, case.material)
        rows.append(judged(painted(patched, clip, vae, name, case.place, seed), case, area, masks))
    found = {}
    for key in rows[0]:
        values = torch.tensor([row[key] for row in rows])
        found[key] = float(values.mean() if key in ("shape", "colour", "material", "contained") else values.nanmedian())
    logger.info("%s of %d: %s", how, count, found)
    return found


def look_at_masks(patched: ModelPatcher, masks: list[Tensor]) -> None:
    def look(executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        result = executor(*args, **kwargs)
        masks.extend(mask[0, 0] > 0.5 for mask in object_masks(patched))
        return result

    patched.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "test", look)


def painted(model: ModelPatcher, clip: Any, vae: Any, name: str, place: str, seed: int) -> dict[str, Tensor]:
    texts = [clip.encode_from_tokens(clip.tokenize(text)) for text in (name, f"{name} on {place}")]
    nothing = [[clip.encode_from_tokens(clip.tokenize("")), {}]]
    empty = {"samples": torch.zeros(2, 4, SIDE // 8, SIDE // 8)}
    latent = core.common_ksampler(model, seed, STEPS, GUIDANCE, "euler", "normal", [[torch.cat(texts), {}]], nothing, empty)[0]
    return decode_and_split(latent, vae, None, layers="foreground, blended", passes=8)[0]


def judged(found: dict[str, Tensor], case: Case, area: Tensor, masks: list[Tensor]) -> dict[str, float]:
    rgba, blended = found["foreground"].movedim(-1, 1), found["blended"][..., :3].movedim(-1, 1)
    alpha, background = rgba[0, 3], case.background[..., :3].movedim(-1, 1)
    inside, verdict = alpha > INSIDE[case.material], judge(rgba)[0]
    # Eight pixels around the object or more, so that its edge does not count as background.
    far = torch.nn.functional.max_pool2d(alpha[None, None], 17, 1, 8)[0, 0] < 0.05
    return {
        "overlap": overlap(inside, case.outline),
        "contained": float((inside & area).sum() / inside.sum().clamp(min=1)),
        "shape": float(verdict.shape == case.shape),
        "colour": float(verdict.colour == case.colour),
        "material": float(verdict.material == case.material),
        "kept": float(psnr(blended[..., far].unsqueeze(-1), background[..., far].unsqueeze(-1))),
        "blended": float(psnr(blended, rgba[:, :3] * alpha + background * (1 - alpha))),
        **({"half": overlap(masks[STEPS // 2 - 1], inside), "end": overlap(masks[-1], inside)} if masks else {}),
    }


def overlap(a: Tensor, b: Tensor) -> float:
    """Intersection over union."""
    return float((a & b).sum() / (a | b).sum().clamp(min=1))


# 24 are what the model card's figures are of.
@pytest.mark.parametrize("count", [8, pytest.param(MOST, marks=pytest.mark.full)])
def test_an_object_has_the_given_outline_or_stays_in_the_given_box(cases: list[Case], count: int) -> None:
    exact, within, plain = (measure(cases, how, count) for how in ("exact", "box", "plain"))
    assert plain["overlap"] < 0.5
    assert exact["overlap"] >= max(EXACT, plain["overlap"] + 0.35)
    assert within["contained"] >= WITHIN > plain["contained"]
    assert exact["end"] >= MASK and within["end"] >= MASK
    assert exact["kept"] >= plain["kept"] + 2 and within["kept"] > plain["kept"]
    for how in (exact, within):
        assert min(how["shape"], how["colour"], how["material"]) >= 0.7
