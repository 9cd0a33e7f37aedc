"""What the deprecated nodes give is what the new nodes give (their inputs and outputs: test_legacy_registration.py)."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import gc
import importlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import folder_paths
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from dev.stand_ins.models import build_model
from dev.stand_ins.seeded import seeded_noise
from dev.stand_ins.vae import build_vae
from dev.stand_ins.weights import write_all
from lib_layerdiffuse.comfyui.alpha.alpha_vae import AlphaVAE
from lib_layerdiffuse.comfyui.layers import ARRANGEMENTS, layer_prompts
from lib_layerdiffuse.comfyui.patch.strength import Strength
from lib_layerdiffuse.comfyui.recipes.blend_extract import make_blend, make_extract
from lib_layerdiffuse.comfyui.recipes.joint import make_joint, make_joint_from_layer
from lib_layerdiffuse.comfyui.recipes.legacy import LayerTexts
from lib_layerdiffuse.comfyui.recipes.transparent import make_transparent
from lib_layerdiffuse.pixels.straight import on_grey, with_alpha
from lib_layerdiffuse.weights.catalogue import Family
from tests.host.reference import as_the_host_runs, assert_differ, noise, prompt, sample, watched
from tests.host.test_legacy_registration import COND_JOINT, JOINT, TRANSPARENT

Nodes = dict[str, Any]
Run = Callable[..., tuple[Any, ...]]
FAMILIES = {"sdxl": "SDXL", "sd15": "SD1.5"}


@pytest.fixture(autouse=True)
def _host() -> Iterator[None]:
    with as_the_host_runs():
        yield


@pytest.fixture(scope="module", autouse=True)
def _weights(tmp_path_factory: pytest.TempPathFactory, pack: ModuleType) -> Iterator[None]:
    """Stand-in files in the model folder."""
    models = tmp_path_factory.mktemp("models")
    write_all(models)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(folder_paths.folder_names_and_paths, "layer_model", ([str(models / "layer_model")], {".safetensors", ".pth"}))
        yield


@pytest.fixture(scope="module")
def sdxl() -> Iterator[ModelPatcher]:
    with watched(build_model("SDXL", 0)) as model:
        yield model


@pytest.fixture(scope="module")
def sd15() -> Iterator[ModelPatcher]:
    with watched(build_model("SD1.5", 0)) as model:
        yield model


@pytest.fixture
def problem(pack: ModuleType) -> type[Exception]:
    """DiaphaneError as the nodes know it: the pack is a package of its own in the host."""
    return importlib.import_module(f"{pack.__name__}.lib_layerdiffuse.errors").DiaphaneError


@pytest.fixture(scope="module")
def run(node_classes: Nodes) -> Run:
    """run(node id, **inputs) -> its outputs."""
    return lambda node_id, **inputs: node_classes[node_id].execute(**inputs).result


def sampled(family: str, model: ModelPatcher, rows: int = 1, positive: Any = None) -> Tensor:
    return sample(model, positive or prompt(family, 1), prompt(family, 2), noise(rows))


def same(actual: Tensor, expected: Tensor) -> None:
    assert actual.isfinite().all()
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def picture(seed: int, height: int = 128, width: int = 128, channels: int = 4) -> Tensor:
    return torch.rand(1, height, width, channels, generator=torch.Generator().manual_seed(seed))


def encoded(rgba: Tensor) -> dict[str, Tensor]:
    """As a workflow of the older pack encodes a layer: composited on grey before VAE Encode."""
    return {"samples": build_vae("SDXL", 0).encode(on_grey(rgba))}


# Models


@pytest.mark.parametrize(
    ("config", "family", "method", "weight"),
    [(TRANSPARENT[0], "sdxl", "attention", 0.7), (TRANSPARENT[1], "sdxl", "conv", 0.7), (TRANSPARENT[2], "sd15", "attention", 1.0)],
)
def test_apply(run: Run, request: pytest.FixtureRequest, config: str, family: str, method: str, weight: float) -> None:
    """With a weight of 0.7, which the older pack takes no notice of for SD1.5."""
    base = request.getfixturevalue(family)
    (patched,) = run("LayeredDiffusionApply", model=base, config=config, weight=0.7)
    result = sampled(family, patched)
    same(result, sampled(family, make_transparent(base, method=method, strength=Strength(weight))))
    assert_differ(result, sampled(family, base))


@pytest.mark.parametrize("given", ["foreground", "background"])
def test_cond_apply(run: Run, sdxl: ModelPatcher, given: str) -> None:
    layer, texts = picture(1), (prompt("sdxl", 1), prompt("sdxl", 2))
    patched, positive, negative = run(
        "LayeredDiffusionCondApply",
        model=sdxl,
        cond=texts[0],
        uncond=texts[1],
        latent=encoded(layer),
        config=f"SDXL, {given.title()}",
        weight=1.0,
    )
    assert positive is texts[0] and negative is texts[1]
    same(sampled("sdxl", patched), sampled("sdxl", make_blend(sdxl, build_vae("SDXL", 0), layer, given)))


@pytest.mark.parametrize(("given", "wanted"), [("foreground", "background"), ("background", "foreground")])
def test_diff_apply(run: Run, sdxl: ModelPatcher, given: str, wanted: str) -> None:
    layer, blended = picture(1), picture(2, channels=3)
    patched, *_ = run(
        "LayeredDiffusionDiffApply",
        model=sdxl,
        cond=prompt("sdxl", 1),
        uncond=prompt("sdxl", 2),
        blended_latent=encoded(with_alpha(blended)),
        latent=encoded(layer),
        config=f"SDXL, {given.title()}",
        weight=0.8,
    )
    expected = make_extract(sdxl, build_vae("SDXL", 0), with_alpha(blended), layer, wanted, strength=Strength(0.8))
    same(sampled("sdxl", patched), sampled("sdxl", expected))


def test_given_latents_of_other_sizes_and_numbers_are_fitted(run: Run, sdxl: ModelPatcher, problem: type[Exception]) -> None:
    texts = {"cond": prompt("sdxl", 1), "uncond": prompt("sdxl", 2)}
    arguments: dict[str, Any] = {"model": sdxl, **texts, "config": "SDXL, Foreground", "weight": 1.0}
    several = {"samples": noise(2, size=(24, 20))}
    patched, *_ = run("LayeredDiffusionDiffApply", latent=several, blended_latent={"samples": noise(1, seed=3, size=(12, 12))}, **arguments)
    assert sampled("sdxl", patched, rows=2).shape == (2, 4, 16, 16)
    with pytest.raises(problem, match="has 16 channels, the model works with 4"):
        run("LayeredDiffusionCondApply", latent={"samples": noise(1, channels=16)}, **arguments)


@pytest.mark.parametrize("own", [(3, 4, 5), (None, 4, None), (None, None, None)])
def test_joint_apply(run: Run, sd15: ModelPatcher, own: tuple[int | None, ...]) -> None:
    """Prompts of layers that the model carries do what Layer Prompts does for the positive prompt."""
    prompts = [None if seed is None else prompt("sd15", seed, tokens=154 if seed == 4 else 77) for seed in own]
    inputs = dict(zip(("fg_cond", "bg_cond", "blended_cond"), prompts, strict=True))
    (patched,) = run("LayeredDiffusionJointApply", model=sd15, config=JOINT[0], **inputs)
    by_layer = dict(zip(ARRANGEMENTS[0], prompts, strict=True))
    positive = layer_prompts(prompt("sd15", 1), ARRANGEMENTS[0], by_layer)
    result = sampled("sd15", patched, rows=6)
    same(result, sampled("sd15", make_joint(sd15), rows=6, positive=positive))
    if any(own):
        assert_differ(result, sampled("sd15", make_joint(sd15), rows=6))


@pytest.mark.parametrize("given", ["foreground", "background"])
def test_cond_joint_apply(run: Run, sd15: ModelPatcher, given: str) -> None:
    layer, own = picture(1), (prompt("sd15", 3), prompt("sd15", 4))
    config = next(option for option in COND_JOINT if given in option.lower())
    (patched,) = run("LayeredDiffusionCondJointApply", model=sd15, image=layer, config=config, cond=own[0], blended_cond=own[1])
    layers = ARRANGEMENTS[1] if given == "foreground" else ARRANGEMENTS[2]
    positive = layer_prompts(prompt("sd15", 1), layers, dict(zip(layers, own, strict=True)))
    same(sampled("sd15", patched, rows=2), sampled("sd15", make_joint_from_layer(sd15, layer, given), rows=2, positive=positive))


def test_texts_of_layers_keep_the_rows_of_a_prompt_that_has_several() -> None:
    base, own = seeded_noise("base", (2, 4, 8)), seeded_noise("own", (1, 6, 8))
    before = base.clone()
    rows = LayerTexts([None, own, None]).rows(base)
    assert rows.shape == (6, 12, 8)
    for row in range(6):
        expected = own[0].repeat(2, 1) if row % 3 == 1 else base[row % 2].repeat(3, 1)
        assert torch.equal(rows[row], expected)
    assert torch.equal(base, before)


def test_models_of_another_family_are_named_with_a_way_out(
    run: Run, sd15: ModelPatcher, sdxl: ModelPatcher, problem: type[Exception]
) -> None:
    wrong = [
        ("LayeredDiffusionApply", {"model": sd15, "config": TRANSPARENT[0], "weight": 1.0}, "got SD1.5. Set config to SD15, Attention"),
        ("LayeredDiffusionApply", {"model": sdxl, "config": TRANSPARENT[2], "weight": 1.0}, "got SDXL. Set config to SDXL, "),
        ("LayeredDiffusionJointApply", {"model": sdxl, "config": JOINT[0]}, "Layer Diffuse Apply"),
        ("LayeredDiffusionCondJointApply", {"model": sdxl, "image": picture(1), "config": COND_JOINT[0]}, "Layer Diffuse Cond Apply"),
    ]
    for node_id, inputs, message in wrong:
        with pytest.raises(problem, match=message):
            run(node_id, **inputs)


# Pictures


@pytest.mark.parametrize(("version", "family"), [("SDXL", Family.SDXL), ("SD15", Family.SD15)])
@pytest.mark.parametrize("size", [(128, 128), (136, 72)])
def test_decoders(run: Run, version: str, family: Family, size: tuple[int, int]) -> None:
    vae: Any = build_vae(family, 0)
    samples = {"samples": noise(3, size=(size[0] // 8, size[1] // 8))}
    images = vae.decode(samples["samples"])
    expected = AlphaVAE(vae, family).decode(samples, images).rgba
    inputs: dict[str, Any] = {"samples": samples, "images": images, "sd_version": version, "sub_batch_size": 2}
    colour, mask = run("LayeredDiffusionDecode", **inputs)
    (rgba,) = run("LayeredDiffusionDecodeRGBA", **inputs)
    assert colour.shape == (3, *size, 3) and mask.shape == (3, *size)
    torch.testing.assert_close(rgba, expected, rtol=0, atol=1e-4)
    # 1 = opaque here: the mask is alpha itself.
    assert torch.equal(torch.cat((colour, mask[..., None]), dim=-1), rgba)
    assert mask.max() > mask.min()


def test_networks_are_read_once(run: Run, pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not again for every run; of two versions, the one that was used last is kept."""
    files = importlib.import_module(f"{pack.__name__}.lib_layerdiffuse.comfyui.alpha.loading")
    read: list[str] = []

    def reading(path: Any, *args: Any, original: Any = files.read_state_dict) -> Any:
        read.append(path.stem)
        return original(path, *args)

    monkeypatch.setattr(files, "read_state_dict", reading)
    importlib.import_module(f"{pack.__name__}.lib_layerdiffuse.comfyui.recipes.legacy")._no_vae.cache_clear()
    inputs: dict[str, Any] = {"samples": {"samples": noise(1)}, "images": picture(1, channels=3), "sub_batch_size": 16}
    for version in ("SDXL", "SDXL", "SD15", "SD15", "SDXL"):
        run("LayeredDiffusionDecodeRGBA", sd_version=version, **inputs)
        gc.collect()
    assert read == ["vae_transparent_decoder", "layer_sd15_vae_transparent_decoder", "vae_transparent_decoder"]
    assert len([vae for vae in files._networks if type(vae).__name__ == "_NoVAE"]) == 1


@pytest.mark.parametrize("frames", [2, 3])
def test_split(run: Run, frames: int) -> None:
    samples = {"samples": noise(2 * frames)}
    images = build_vae("SD1.5", 0).decode(samples["samples"])
    first, *others = run("LayeredDiffusionDecodeSplit", samples=samples, images=images, frames=frames, sd_version="SD15", sub_batch_size=16)
    inputs: dict[str, Any] = {"samples": {"samples": samples["samples"][::frames]}, "images": images[::frames]}
    (expected,) = run("LayeredDiffusionDecodeRGBA", **inputs, sd_version="SD15", sub_batch_size=16)
    assert torch.equal(first, expected)
    for position, found in enumerate(others[: frames - 1], start=1):
        assert torch.equal(found, images[position::frames])
    if frames == 2:
        assert isinstance(others[1], ExecutionBlocker) and "Set frames to 3" in others[1].message


def test_pictures_that_do_not_belong_to_the_latents(run: Run, problem: type[Exception]) -> None:
    inputs: dict[str, Any] = {"images": picture(1, channels=3), "sd_version": "SDXL", "sub_batch_size": 16}
    with pytest.raises(problem, match="1 images and 2 latents"):
        run("LayeredDiffusionDecodeRGBA", samples={"samples": noise(2)}, **inputs)
    with pytest.raises(problem, match="Use Transparent VAE Decode"):
        run("LayeredDiffusionDecodeRGBA", samples={"samples": noise(1, channels=16)}, **inputs)
