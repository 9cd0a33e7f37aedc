"""A trained brush in ComfyUI: it computes what training computes, keeps what is outside of its area, and says what does not fit.

The network is the mini family's for layers beside a background, made a brush with random weights: large enough ones to matter.
"""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.samplers
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy.sd import CLIP, VAE
from torch import Tensor

from lib_layerdiffuse.comfyui.models.mini import FOLDER, load_mini
from lib_layerdiffuse.comfyui.patch.attention_sharing import share_attention
from lib_layerdiffuse.comfyui.patch.generated import LAYERS, object_masks
from lib_layerdiffuse.comfyui.patch.strength import Strength
from lib_layerdiffuse.comfyui.recipes.joint import make_joint, make_joint_from_layer
from lib_layerdiffuse.comfyui.recipes.trained_brush import make_trained_brush
from lib_layerdiffuse.errors import DiaphaneError
from lib_layerdiffuse.nets.attention_sharing import AttentionSharing
from lib_layerdiffuse.pixels.fit import FIT
from lib_layerdiffuse.weights.catalogue import Role
from training import mini
from training.data.procedural import layers
from training.loop import load_weights, save_weights
from training.stages.brush import HEAD, brush_from, cells

from .reference import as_the_host_runs, assert_same, watched

core: Any = importlib.import_module("nodes")  # ComfyUI's own module

SIDE, STEPS, GUIDANCE, SETS = 128, 4, 2.5, 2
Mini = tuple[ModelPatcher, CLIP, VAE]


@pytest.fixture(autouse=True)
def _host() -> Iterator[None]:
    with as_the_host_runs():
        yield


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> mini.MiniFiles:
    """The mini family with a brush of random weights."""
    folder = tmp_path_factory.mktemp("mini")
    for path in FOLDER.glob("*.safetensors"):
        shutil.copy(path, folder)
    files = mini.MiniFiles(folder, Path("unused"))
    torch.manual_seed(0)
    brush: Any = brush_from(load_weights(files.path("bg2fg")), mini.UNET.model_channels)
    with torch.no_grad():
        for parameter in brush.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02).copy_(parameter.half())
        brush.kwargs_encoder.blocks_0[0].weight[:, 3:] *= 3  # area and precision count for something
    save_weights(brush.state_dict(), files.path("brush"))
    return files


@pytest.fixture(scope="module")
def loaded(family: mini.MiniFiles) -> Iterator[Mini]:
    model, clip, vae = load_mini(family.files)
    with watched(model):
        yield model, clip, vae


@pytest.fixture(scope="module")
def background() -> Tensor:
    picture = layers(1, SIDE, torch.Generator().manual_seed(11)).background.movedim(1, -1)
    return torch.cat([picture, torch.ones_like(picture[..., :1])], dim=-1)


@pytest.fixture(scope="module")
def area() -> Tensor:
    mask = torch.zeros(1, SIDE, SIDE)
    mask[:, 30:91, 42:101] = 1
    return mask


def texts(clip: CLIP, *rows: str, **settings: Any) -> list[list[Any]]:
    return [[torch.cat([clip.encode_from_tokens(clip.tokenize(row)) for row in rows]), settings]]


def sampled(model: ModelPatcher, clip: CLIP, *, side: int = SIDE, sampler: str = "euler", positive: Any = None) -> Tensor:
    """Sets of layers as the sampler gives them, scaled as the model sees latents."""
    positive = positive or texts(clip, *("a red star", "a red star on a green meadow") * SETS)
    empty = {"samples": torch.zeros(2 * SETS, 4, side // 8, side // 8)}
    found = core.common_ksampler(model, 3, STEPS, GUIDANCE, sampler, "normal", positive, texts(clip, ""), empty)[0]["samples"]
    return model.model.process_latent_in(found)


def outside_of(family: mini.MiniFiles, background: Tensor) -> Tensor:
    """What each frame is without an object, as training encodes it: [2, 4, h, w]."""
    encoder = family.latent_encoder(cpu=True)
    rgb = background[..., :3].movedim(-1, 1)
    return torch.cat([encoder.transparent(torch.zeros(1, 4, *rgb.shape[2:])), encoder.opaque(rgb)]).float()


def in_training(
    family: mini.MiniFiles, model: ModelPatcher, clip: CLIP, background: Tensor, area: Tensor, precision: float, *, confined: bool = True
) -> tuple[Tensor, Tensor]:
    """The same sampling with training's own networks, in a plain loop, and the masks predicted at its last step."""
    unet, sharing = family.unet(), AttentionSharing.from_state_dict(load_weights(family.path("brush")))
    plane = area[:, None]
    picture = torch.cat([background[..., :3].movedim(-1, 1), plane, torch.full_like(plane, 1 - precision)], dim=1)
    control = (picture * 2 - 1).expand(SETS, -1, -1, -1)
    inside = cells(plane) if confined else torch.ones(1, 1, SIDE // 8, SIDE // 8)
    without = outside_of(family, background).repeat(SETS, 1, 1, 1)
    positive = texts(clip, *("a red star", "a red star on a green meadow") * SETS)[0][0].float()
    negative = texts(clip, *("",) * 2 * SETS)[0][0].float()

    schedule = model.model.model_sampling
    sigmas = comfy.samplers.calculate_sigmas(schedule, "normal", STEPS)
    shape = (2 * SETS, 4, SIDE // 8, SIDE // 8)
    x = schedule.noise_scaling(sigmas[0], torch.randn(shape, generator=torch.manual_seed(3)), torch.zeros(shape), True)
    masks = torch.empty(0)
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        scaled = x / (1 + sigma**2).sqrt()
        shown = torch.where(inside > 0, scaled, without)
        t = schedule.timestep(sigma).float().expand(len(x))
        both = []
        for text in (negative, positive):
            features = unet.features(shown, t, text, None, sharing, control)
            both.append((scaled - sigma * unet.out[-1](features)) / (1 + sigma**2).sqrt())
            masks = sharing.object_mask(features[::2])
        clean = both[0] + GUIDANCE * (both[1] - both[0])
        clean = torch.where(inside > 0, clean, without)
        x = clean + (x - clean) * following / sigma
    return x, masks


@pytest.mark.parametrize("precision", [1.0, 0.25])
def test_it_paints_what_training_paints(family: mini.MiniFiles, loaded: Mini, background: Tensor, area: Tensor, precision: float) -> None:
    model, clip, vae = loaded
    expected, masks = in_training(family, model, clip, background, area, precision)
    free, _ = in_training(family, model, clip, background, area, precision, confined=False)
    patched = make_trained_brush(model, vae, background, area, precision)
    assert patched.get_attachment(LAYERS) == ("foreground", "blended")
    seen = watch_masks(patched)
    assert_same(sampled(patched, clip), expected, free, 3e-2)
    other = sampled(make_trained_brush(model, vae, background, area, 1.25 - precision), clip)
    assert (other - expected).abs().max() > 0.05 * expected.abs().max(), "precision says nothing"
    assert len(seen) == STEPS and seen[-1].shape == (SETS, 1, SIDE, SIDE)
    assert (seen[-1] - masks).abs().max() < 2e-2 < masks.std()
    assert object_masks(patched) == []  # forgotten at the end


def watch_masks(patched: ModelPatcher) -> list[Tensor]:
    """What other patches see of the predicted masks after each step."""
    seen: list[Tensor] = []

    def look(executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        result = executor(*args, **kwargs)
        seen.extend(mask.clone() for mask in object_masks(patched))
        return result

    patched.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "test", look)
    return seen


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m_sde", "heun"])
def test_outside_of_the_area_nothing_changes(family: mini.MiniFiles, loaded: Mini, background: Tensor, area: Tensor, sampler: str) -> None:
    model, clip, vae = loaded
    found = sampled(make_trained_brush(model, vae, background, area, 1.0), clip, sampler=sampler)
    outside = (cells(area[:, None]) == 0).expand_as(found)
    without = outside_of(family, background).repeat(SETS, 1, 1, 1)
    assert (found - without)[outside].abs().max() < 5e-3 * without.abs().max()
    assert (found - without)[~outside].abs().max() > 0.2 * without.abs().max()


def test_another_size_and_prompts_for_parts_of_the_picture(loaded: Mini, background: Tensor, area: Tensor) -> None:
    """Each part of the picture sees its own part of the area."""
    model, clip, vae = loaded
    patched = make_trained_brush(model, vae, background, area, 1.0, fit=FIT)
    shown: list[tuple[int, ...]] = []

    def look(executor: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        shown.append(tuple(x.shape[2:]))
        return executor(x, *args, **kwargs)

    patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", look)
    half = (16, 12, 0, 12)  # of a latent of 16 x 24: height, width, y, x
    rows = ("a red star", "a red star on a green meadow") * SETS
    positive = texts(clip, *rows) + texts(clip, *rows, area=half)
    latent = {"samples": torch.zeros(2 * SETS, 4, 16, 24)}
    found = core.common_ksampler(patched, 3, STEPS, GUIDANCE, "euler", "normal", positive, texts(clip, ""), latent)[0]["samples"]
    assert found.isfinite().all() and {(16, 24), (16, 12)} <= set(shown)
    alone = [[texts(clip, *rows)[0][0], {}], [texts(clip, *rows)[0][0], {"area": (16, 24, 0, 0)}]]
    plain = core.common_ksampler(patched, 3, STEPS, GUIDANCE, "euler", "normal", texts(clip, *rows), texts(clip, ""), latent)[0]["samples"]
    twice = core.common_ksampler(patched, 3, STEPS, GUIDANCE, "euler", "normal", alone, texts(clip, ""), latent)[0]["samples"]
    assert (twice - plain).abs().max() < 1e-2 * plain.abs().max(), "an area that is the whole picture changes nothing"
    assert (found - plain).abs().max() > 1e-2 * plain.abs().max()


def test_parts_see_their_part_of_what_is_outside(family: mini.MiniFiles, loaded: Mini, background: Tensor, area: Tensor) -> None:
    model, clip, vae = loaded
    patched = make_trained_brush(model, vae, background, area, 1.0)
    shown: list[Tensor] = []
    inner = model.model.diffusion_model.input_blocks[0][0].register_forward_pre_hook(lambda module, args: shown.append(args[0].clone()))
    rows = ("a red star", "a red star on a green meadow") * SETS
    try:
        sampled(patched, clip, positive=texts(clip, *rows, area=(16, 8, 0, 8)))
    finally:
        inner.remove()
    part = next(x for x in shown if x.shape[3] == 8)
    without = outside_of(family, background)[..., 8:]
    same = ((part.unflatten(0, (-1, 2)) - without).abs() < 5e-3 * without.abs().max()).all(dim=2)
    kept = (cells(area[:, None])[0, 0, :, 8:] == 0).expand_as(same)
    assert same[kept].all() and same[~kept].float().mean() < 0.1
    assert kept.any() and not kept.all()


def test_without_any_strength_it_changes_nothing(loaded: Mini, background: Tensor, area: Tensor) -> None:
    model, clip, vae = loaded
    off = make_trained_brush(model, vae, background, area, 1.0, strength=Strength(0.0))
    assert torch.equal(sampled(off, clip), sampled(model, clip))


def test_what_does_not_fit_says_so(family: mini.MiniFiles, loaded: Mini, background: Tensor, area: Tensor) -> None:
    model, clip, vae = loaded
    other = load_mini(family.files)[0]
    own = other.model.model_config.layer_weights
    own[Role.BRUSH], own[Role.BACKGROUND_TO_FOREGROUND] = own[Role.BACKGROUND_TO_FOREGROUND], own[Role.BRUSH]
    own[Role.JOINT] = own[Role.BACKGROUND_TO_FOREGROUND]
    with pytest.raises(DiaphaneError, match="^bg2fg.safetensors: This is not a file for 2 layers beside a given one and an area. It looks"):
        make_trained_brush(other, vae, background, area, 1.0)
    with pytest.raises(DiaphaneError, match="brush.*not a file for 2 layers beside a given one. It looks like attention sharing.*brush"):
        make_joint_from_layer(other, background, "background")
    with pytest.raises(DiaphaneError, match="not a file for 3 layers. It looks"):
        make_joint(other)
    weights = load_weights(family.path("brush"))
    with pytest.raises(DiaphaneError, match="reads 5 channels beside the layers, got 3"):
        share_attention(model, weights, control=background[..., :3])
    narrow = {**weights, f"{HEAD}.weight": weights[f"{HEAD}.weight"][:, :8]}
    with pytest.raises(DiaphaneError, match="has 32 channels, its mask head reads 8"):
        share_attention(model, narrow, control=torch.rand(1, 64, 64, 5))
    with pytest.raises(DiaphaneError, match="impossible shapes"):
        share_attention(model, {**weights, f"{HEAD}.weight": weights[f"{HEAD}.weight"][:9]}, control=torch.rand(1, 64, 64, 5))
    for bad, message in (
        ({"area": torch.zeros(SIDE, SIDE)}, "is empty: white is where"),
        ({"area": torch.ones(2, SIDE, SIDE)}, "one area, got 2"),
        ({"rgba": torch.rand(3, 64, 64, 4)}, "one background, got 3"),
        ({"precision": 1.5}, "between 0 .* and 1 .*, got 1.5"),
    ):
        with pytest.raises(DiaphaneError, match=message):
            make_trained_brush(model, vae, **{"rgba": background, "area": area, "precision": 1.0, **bad})


def test_no_weights_were_released(narrow_model: Any, loaded: Mini, background: Tensor, area: Tensor) -> None:
    with pytest.raises(DiaphaneError, match="no released weights for 'brush .*Mini Models"):
        make_trained_brush(narrow_model("sd15"), loaded[2], background, area, 1.0)
