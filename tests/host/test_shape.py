"""LayerDiffuse Shape in ComfyUI's real sampling: layers lie where they are drawn, and whatever else patches a model goes on working."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import comfy.model_management as memory
import pytest
import torch
from torch import Tensor

from lib_layerdiffuse.comfyui.alpha.alpha_vae import AlphaVAE
from lib_layerdiffuse.comfyui.layers import BACKGROUND, BLENDED, FOREGROUND
from lib_layerdiffuse.comfyui.models.mini import load_mini
from lib_layerdiffuse.comfyui.patch import corrections
from lib_layerdiffuse.comfyui.patch.generated import object_masks, set_layers
from lib_layerdiffuse.comfyui.recipes.joint import make_joint_from_layer
from lib_layerdiffuse.comfyui.recipes.shape import make_shape
from lib_layerdiffuse.comfyui.recipes.transparent import make_transparent
from lib_layerdiffuse.errors import DiaphaneError
from lib_layerdiffuse.weights.catalogue import Family
from training.data.captions import describe
from training.data.colours import COLOURS
from training.data.shapes import SHAPES
from training.data.sprites import MATERIALS, draw_sprites, outline
from training.judge import judge

from .reference import as_the_host_runs, watched

core: Any = importlib.import_module("nodes")  # ComfyUI's own module
custom: Any = importlib.import_module("comfy_extras.nodes_custom_sampler")
differential: Any = importlib.import_module("comfy_extras.nodes_differential_diffusion")

SIDE, STEPS, GUIDANCE, MOST = 128, 20, 2.5, 24
INSIDE = {"solid": 0.5, "glass": 0.12, "glow": 0.6}  # alpha from which on a pixel belongs to the object
BOX = (32, 96, 24, 104)  # top, bottom, left, right


@pytest.fixture(scope="module", autouse=True)
def _host() -> Iterator[None]:
    with as_the_host_runs():
        yield


@pytest.fixture(scope="module")
def mini() -> Iterator[tuple[Any, Any, Any]]:
    model, clip, vae = load_mini()
    with watched(model):
        yield model, clip, vae


def box(top: int, bottom: int, left: int, right: int) -> Tensor:
    mask = torch.zeros(1, SIDE, SIDE)
    mask[:, top:bottom, left:right] = 1.0
    return mask


def sampled(mini: Any, model: Any, prompts: list[str], seed: int = 5, steps: int = STEPS, **options: Any) -> Tensor:
    """The host samples a row for each prompt -> latents."""
    sampler = {"sampler": "euler", "scheduler": "normal", "denoise": 1.0, "latent": None, **options}
    latent = sampler["latent"] or {"samples": torch.zeros(len(prompts), 4, SIDE // 8, SIDE // 8)}
    text, nothing = [[torch.cat([encoded(mini, words) for words in prompts]), {}]], [[encoded(mini, ""), {}]]
    names = (sampler["sampler"], sampler["scheduler"])
    return core.common_ksampler(model, seed, steps, GUIDANCE, *names, text, nothing, latent, denoise=sampler["denoise"])[0]["samples"]


def encoded(mini: Any, words: str) -> Tensor:
    return mini[1].encode_from_tokens(mini[1].tokenize(words))


def rgba_of(mini: Any, latent: Tensor) -> Tensor:
    return AlphaVAE(mini[2], Family.SD15).decode({"samples": latent}, passes=1).rgba


def share_inside(rgba: Tensor, area: Tensor) -> Tensor:
    return (rgba[..., 3] * area).sum(dim=(1, 2)) / rgba[..., 3].sum(dim=(1, 2))


# Means of precision


@pytest.mark.parametrize("count", [8, pytest.param(MOST, marks=pytest.mark.full)])
def test_layers_have_the_drawn_outline_and_show_what_the_prompt_says(mini: Any, count: int) -> None:
    """The outline is another pose of the prompted shape: nothing but the area says where it is."""
    generator = torch.Generator().manual_seed(9100)
    shape, colour, material = (torch.randint(most, (MOST,), generator=generator)[:count] for most in (len(SHAPES), len(COLOURS), 3))
    pose = draw_sprites(shape, colour, material, generator)
    area = outline(pose, SIDE)[:, 0].float()
    kinds = [(SHAPES[s], COLOURS[c], MATERIALS[m]) for s, c, m in zip(shape, colour, material, strict=True)]
    base = make_transparent(mini[0])
    found = {}
    for name, model in {
        "plain": base,
        "exact": make_shape(base, mini[2], area),
        "between": make_shape(base, mini[2], area, precision=0.5),
        "anywhere": make_shape(base, mini[2], area, precision=0.0),
    }.items():
        rgba = rgba_of(mini, sampled(mini, model, [describe(*kind) for kind in kinds]))
        threshold = torch.tensor([INSIDE[material] for _, _, material in kinds])[:, None, None]
        inside, wanted = rgba[..., 3] > threshold, area > 0.5
        overlap, clipped = (float(((a & wanted).sum((1, 2)) / (a | wanted).sum((1, 2))).median()) for a in (inside, inside & wanted))
        right = sum(
            (v.shape == s) + (v.colour == c) + (v.material == m) for v, (s, c, m) in zip(judge(rgba.movedim(-1, 1)), kinds, strict=True)
        )
        found[name] = {"overlap": overlap, "clipped": clipped, "right": right}
    logging.getLogger("diaphane").info("%d: %s", count, found)
    assert found["exact"]["overlap"] >= max(0.70, found["plain"]["overlap"] + 0.35)
    assert found["exact"]["clipped"] >= 0.85
    assert found["exact"]["right"] >= 0.9 * found["plain"]["right"]
    assert found["exact"]["clipped"] > found["between"]["clipped"] > found["plain"]["clipped"]
    assert found["between"]["overlap"] >= found["anywhere"]["overlap"] - 0.05


def test_anywhere_in_a_box_is_inside_of_it(mini: Any) -> None:
    base, area = make_transparent(mini[0]), box(*BOX)
    prompts = ["a red heart", "a blue glass star", "a yellow circle", "a green ring"]
    shares = [
        share_inside(rgba_of(mini, sampled(mini, model, prompts)), area).median()
        for model in (base, make_shape(base, mini[2], area, precision=0.0))
    ]
    assert shares[0] < 0.8 and shares[1] >= 0.88


@pytest.mark.parametrize("settings", [{"strength": 0.0}, {"end": 0.0}, {"precision": 0.0}])
def test_what_changes_nothing_is_bit_identical(mini: Any, settings: dict[str, float]) -> None:
    base = make_transparent(mini[0])
    area = torch.ones(1, 32, 32) if "precision" in settings else box(*BOX)
    plain, shaped = (sampled(mini, model, ["a red heart"], steps=3) for model in (base, make_shape(base, mini[2], area, **settings)))
    assert torch.equal(plain, shaped)
    assert not torch.equal(plain, sampled(mini, make_shape(base, mini[2], box(*BOX)), ["a red heart"], steps=3))


# What runs with it


@pytest.mark.parametrize(
    ("sampler", "scheduler"),
    [
        ("dpmpp_2m_sde", "karras"),
        ("euler_cfg_pp", "normal"),
        ("heun", "normal"),
        ("uni_pc", "normal"),
        ("lcm", "sgm_uniform"),
    ],
)
def test_samplers(mini: Any, sampler: str, scheduler: str) -> None:
    base, area = make_transparent(mini[0]), box(16, 64, 16, 64)
    prompts = ["a red square", "a blue square"]
    models = (base, make_shape(base, mini[2], area))
    made = [rgba_of(mini, sampled(mini, model, prompts, sampler=sampler, scheduler=scheduler, steps=12)) for model in models]
    plain, shaped = (share_inside(rgba, area).median() for rgba in made)
    assert plain < 0.5 and shaped > 0.75


def test_several_sets_of_layers_have_areas_of_their_own(mini: Any) -> None:
    """Before or after the node that patches for layers; rows of other layers are not confined."""
    background = torch.cat([torch.full((1, SIDE, SIDE, 3), 0.4), torch.ones(1, SIDE, SIDE, 1)], dim=-1)
    areas = torch.cat([box(16, 64, 16, 64), box(64, 112, 64, 112)])
    after = make_shape(make_joint_from_layer(mini[0], background, BACKGROUND), mini[2], areas)
    before = make_joint_from_layer(make_shape(mini[0], mini[2], areas), background, BACKGROUND)
    prompts = ["a red square"] * 4
    latents = [sampled(mini, model, prompts) for model in (after, before)]
    assert torch.equal(*latents)
    rgba = rgba_of(mini, latents[0][0::2])
    assert (share_inside(rgba, areas) > 0.6).all() and (share_inside(rgba, areas.flip(0)) < 0.2).all()
    with pytest.raises(DiaphaneError, match=r"2 areas for 3 transparent layers"):
        sampled(mini, after, ["a red square"] * 6, steps=1)


def test_a_model_without_a_transparent_layer_is_left_alone(mini: Any, caplog: pytest.LogCaptureFixture) -> None:
    plain = set_layers(mini[0].clone(), [BLENDED])
    made = [sampled(mini, model, ["a red heart"], steps=2) for model in (plain, make_shape(plain, mini[2], box(*BOX)))]
    assert torch.equal(*made)
    assert caplog.text.count("generates no transparent layer") == 1


def test_guiders_differential_diffusion_and_two_areas(mini: Any) -> None:
    """Two areas mean what they have in common."""
    base = differential.DifferentialDiffusion.execute(make_transparent(mini[0])).result[0]
    left, top = box(0, SIDE, 0, 72), box(0, 72, 0, SIDE)
    model = make_shape(make_shape(base, mini[2], left, precision=0.0), mini[2], top, precision=0.0)
    text, nothing = ([[encoded(mini, words), {}]] for words in ("a red heart", ""))
    sigmas = custom.BasicScheduler.execute(model, "normal", 12, 1.0).result[0]
    guiders = [
        custom.BasicGuider.execute(model, text),
        custom.CFGGuider.execute(model, text, nothing, GUIDANCE),
        custom.DualCFGGuider.execute(model, text, text, nothing, GUIDANCE, 1.0, "regular"),
    ]
    for guider in guiders:
        latent = {"samples": torch.zeros(1, 4, SIDE // 8, SIDE // 8), "noise_mask": torch.ones(1, SIDE, SIDE)}
        noise, sampler = custom.RandomNoise.execute(3).result[0], custom.KSamplerSelect.execute("euler").result[0]
        made = custom.SamplerCustomAdvanced.execute(noise, guider.result[0], sampler, sigmas, latent).result[0]["samples"]
        assert share_inside(rgba_of(mini, made), left * top) > 0.8


def test_a_second_pass(mini: Any) -> None:
    """Marks before the start of a sampling with less denoise are made up for at once."""
    base, area = make_transparent(mini[0]), box(16, 64, 16, 64)
    empty = AlphaVAE(mini[2], Family.SD15).empty(SIDE, SIDE, 2)
    models = (base, make_shape(base, mini[2], area))
    made = [rgba_of(mini, sampled(mini, model, ["a red square"] * 2, latent=empty, denoise=0.6)) for model in models]
    covered = [(rgba[..., 3] * area).sum(dim=(1, 2)) / area.sum() for rgba in made]
    assert (covered[1] > covered[0] + 0.2).all() and (share_inside(made[1], area) > 0.75).all()


# What may happen in between


def test_what_was_pushed_out_of_memory_comes_back(mini: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, area = make_shape(make_transparent(mini[0]), mini[2], box(*BOX)), ["a red heart"]
    usual = sampled(mini, model, area, steps=6)
    decode, unloaded = corrections.decode_rgba, []

    def on_a_small_card(*args: Any, **kwargs: Any) -> Tensor:
        memory.unload_all_models()
        unloaded.append(True)
        return decode(*args, **kwargs)

    monkeypatch.setattr(corrections, "decode_rgba", on_a_small_card)
    assert torch.equal(usual, sampled(mini, model, area, steps=6)) and len(unloaded) > 1


def test_interrupted_in_a_correction(mini: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_shape(make_transparent(mini[0]), mini[2], box(*BOX))
    usual = sampled(mini, model, ["a red heart"], steps=4)

    def interrupt(*_: Any, **__: Any) -> Tensor:
        raise memory.InterruptProcessingException

    with monkeypatch.context() as patch:
        patch.setattr(corrections, "decode_rgba", interrupt)
        with pytest.raises(memory.InterruptProcessingException):
            sampled(mini, model, ["a red heart"], steps=4)
    assert object_masks(model) == []
    assert torch.equal(usual, sampled(mini, model, ["a red heart"], steps=4))


@pytest.mark.parametrize("count", [2, 4, 8])
def test_as_many_corrections_as_asked_for(mini: Any, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    counted: list[int] = []
    decode: Callable[..., Tensor] = corrections.decode_rgba
    monkeypatch.setattr(corrections, "decode_rgba", lambda *args, **kwargs: counted.append(1) or decode(*args, **kwargs))
    model = make_shape(make_transparent(mini[0]), mini[2], box(*BOX), corrections=count)
    sampled(mini, model, ["a red heart"], steps=20)
    assert len(counted) == count


@pytest.mark.parametrize(
    ("area", "words"),
    [
        (torch.zeros(1, 8, 8), "nothing is marked"),
        (box(10, 19, 10, 90), r"the area is 80x9 px, a layer needs 16x16 px"),
    ],
)
def test_areas_in_which_no_layer_has_room(mini: Any, area: Tensor, words: str) -> None:
    with pytest.raises(DiaphaneError, match=words):
        sampled(mini, make_shape(make_transparent(mini[0]), mini[2], area), ["a red heart"], steps=1)


def test_nodes_say_which_layers_they_generate(mini: Any) -> None:
    background = torch.ones(1, SIDE, SIDE, 4)
    for model, layers in (
        (make_transparent(mini[0]), (FOREGROUND,)),
        (make_joint_from_layer(mini[0], background, BACKGROUND), (FOREGROUND, BLENDED)),
        (make_joint_from_layer(mini[0], background, FOREGROUND), (BACKGROUND, BLENDED)),
    ):
        assert model.get_attachment("diaphane.layers") == layers
