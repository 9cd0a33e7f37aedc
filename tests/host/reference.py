"""What patched models should compute, worked out another way, for the composition tests.

Nothing here uses the code under test: weights are changed by hand in copies of the model, shared attention is written out row by row
(shared_attention.py), and extra channels are a widened first convolution.
Those copies then go through the host's real sampling, as the patched models do.
"""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false, reportReturnType=false
from __future__ import annotations

import copy
import importlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.sd
import comfy.utils
import torch
from comfy.model_patcher import CoreModelPatcher, ModelPatcher
from torch import Tensor

from dev.stand_ins import shapes
from dev.stand_ins.models import configured
from dev.stand_ins.seeded import seeded_noise, seeded_weights

# ComfyUI's own module: this repository has a folder of that name.
core: Any = importlib.import_module("nodes")

Conditioning = list[list[Any]]
FIRST_CONV = "diffusion_model.input_blocks.0.0.weight"
CONTEXT = {"sd15": 48, "sdxl": 64}
# SDXL with few transformer blocks: all that its depth would add here is time.
SHALLOW = {**shapes.unet_config("SDXL"), "transformer_depth": [0, 0, 1, 1, 2, 2], "transformer_depth_middle": 1}
SHALLOW |= {"transformer_depth_output": [0, 0, 0, 1, 1, 1, 1, 1, 1]}
CONFIGS = {"sd15": ("SD1.5", shapes.unet_config("SD1.5")), "sdxl": ("SDXL", SHALLOW)}
HALF = (16, 8, 0, 8)  # the right half of a 16 x 16 latent, as the host writes an area: height, width, y, x


@contextmanager
def as_the_host_runs() -> Iterator[None]:
    """Inference mode, as around every node; one thread, because threads that wait for a busy core cost these small models most."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)


# Inputs


def noise(rows: int, *, seed: int = 1, size: tuple[int, int] = (16, 16), channels: int = 4) -> Tensor:
    """[rows, channels, *size]; row i is the same whatever the number of rows."""
    return torch.cat([seeded_noise(f"noise {row}", (1, channels, *size), seed) for row in range(rows)])


def prompt(family: str, seed: int, tokens: int = 77, **settings: Any) -> Conditioning:
    """A CONDITIONING with made-up text of `tokens` tokens."""
    extra = {"pooled_output": seeded_noise("pooled", (1, 1280), seed)} if family == "sdxl" else {}
    return [[seeded_noise("text", (1, tokens, CONTEXT[family]), seed), {**extra, **settings}]]


def stand_in_sharing(frames: int, control: bool) -> dict[str, Tensor]:
    """Attention sharing weights that fit the narrow SD1.5 model, with a small control encoder."""
    return seeded_weights(shapes.attention_sharing_shapes(frames, control=control))


def shallow(name: str) -> shapes.Shapes:
    """A table of the narrow SDXL model, without the transformer blocks that SHALLOW does not have."""
    gone = re.compile(r"transformer_blocks\.[2-9]\.|(?<!input_blocks\.[78]\.1\.)transformer_blocks\.1\.")
    return {key: shape for key, shape in shapes.table(f"narrow_sdxl_{name}_shapes").items() if not gone.search(key)}


UNETS = {"sd15": shapes.unet_shapes("SD1.5"), "sdxl": shallow("unet")}


def stand_in_deltas(file: str) -> dict[str, Tensor]:
    """Delta files that fit the shallow SDXL model: "lora", "diff", "extra" (4 more channels) or "two extras" (8)."""
    table = shallow({"lora": "transparent_attn", "diff": "transparent_conv", "extra": "fg2ble", "two extras": "bgble2fg"}[file])
    gain = 1.0 if file == "lora" else 0.15
    return {key: seeded_noise(key, shape) * gain / math.prod(shape[1:]) ** 0.5 for key, shape in table.items()}


def sample(
    model: ModelPatcher,
    positive: Conditioning,
    negative: Conditioning | None,
    start: Tensor,
    *,
    steps: int = 1,
    cfg: float = 3.0,
    sampler: str = "euler",
    scheduler: str = "normal",
    **options: Any,
) -> Tensor:
    """The host's sampling from pure noise `start`."""
    empty = torch.zeros_like(start)
    return comfy.sample.sample(
        model, start, steps, cfg, sampler, scheduler, positive, negative or [], empty, disable_pbar=True, seed=7, **options
    )


def assert_same(actual: Tensor, expected: Tensor, base: Tensor, share: float = 2e-3) -> None:
    """`actual` is `expected`, to within a small share of what sets `expected` apart from `base`, the result without that effect."""
    effect = (expected - base).abs().max()
    assert expected.isfinite().all()
    assert effect > 0.02 * base.abs().max(), f"the effect ({effect:.2g}) is too small to test anything"
    error = (actual - expected).abs().max()
    assert error < share * effect, f"off by {error:.3g}, where the effect is {effect:.3g}"


def assert_differ(a: Tensor, b: Tensor) -> None:
    assert (a - b).abs().max() > 0.01 * b.abs().max()


def assert_closer(actual: Tensor, expected: Tensor, wrong: Tensor) -> None:
    """`actual` is `expected` and by far not `wrong`, however small the difference between those may be."""
    assert 20 * (actual - expected).abs().max() < (wrong - expected).abs().max()


# Models


def build_model(family: str, dtype: torch.dtype = torch.float32) -> ModelPatcher:
    """A narrow model, "sd15" or "sdxl", its weights kept in `dtype` and computed with in float32."""
    config = configured(*CONFIGS[family], dtype, None if dtype == torch.float32 else torch.float32)
    model = config.get_model({}, "", device=torch.device("cpu"))
    model.diffusion_model.load_state_dict(seeded_weights(UNETS[family]))
    return CoreModelPatcher(model, load_device=torch.device("cpu"), offload_device=torch.device("cpu"))


def weights_of(model: ModelPatcher) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in model.model.state_dict().items()}


def assert_untouched(model: ModelPatcher, before: Mapping[str, Tensor]) -> None:
    """The model's weights are bit-identical to `before` and no module carries a hook."""
    after = model.model.state_dict()
    assert after.keys() == before.keys()
    assert not [key for key in after if after[key].dtype != before[key].dtype or not _same_bits(after[key], before[key])]
    assert_no_hooks(model)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def assert_no_hooks(model: ModelPatcher) -> None:
    hooked = [name for name, module in model.model.named_modules() if module._forward_hooks or module._forward_pre_hooks]
    assert not hooked, hooked


@contextmanager
def watched(model: ModelPatcher) -> Iterator[ModelPatcher]:
    """Whatever is done with the model, it is bit-identical in the end and carries no hook."""
    before = weights_of(model)
    yield model
    comfy.model_management.unload_all_models()
    assert_untouched(model, before)


def copy_of(model: ModelPatcher) -> ModelPatcher:
    """A model of its own with the unpatched weights of `model`."""
    comfy.model_management.unload_all_models()
    config = model.model.model_config  # copies of it break
    return CoreModelPatcher(
        copy.deepcopy(model.model, {id(config): config}), load_device=model.load_device, offload_device=model.offload_device
    )


def changed(model: ModelPatcher, *changes: Mapping[str, Tensor]) -> ModelPatcher:
    """A copy whose weights have the `changes` added, by hand. The first convolution may become wider."""
    result = copy_of(model)
    for key, change in (item for each in changes for item in each.items()):
        parameter = comfy.utils.get_attr(result.model, key)
        change = change.float().reshape(change.shape if change.ndim == parameter.ndim else parameter.shape)
        if key == FIRST_CONV and change.shape[1] != parameter.shape[1]:
            wide = torch.zeros(parameter.shape[0], max(change.shape[1], parameter.shape[1]), 3, 3)
            wide[:, : parameter.shape[1]] += parameter
            wide[:, : change.shape[1]] += change
            comfy.utils.set_attr_param(result.model, key, wide)
        else:
            comfy.utils.set_attr_param(result.model, key, parameter.detach() + change)
    return result


def delta_changes(weights: Mapping[str, Tensor], weight: float = 1.0) -> dict[str, Tensor]:
    """{model key: what a delta file adds to it} (docs/facts.md section 2)."""
    changes: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        key, kind, index = name.split("::")
        if kind == "diff":
            changes[key] = tensor * weight
        elif index == "0":
            changes[key] = tensor @ weights[f"{key}::lora::1"] * weight
    return changes


def with_concat(conditioning: Conditioning, latent: Tensor) -> Conditioning:
    """The host's own way of giving a widened model extra channels."""
    return [[text, {**settings, "noise_concat": latent}] for text, settings in conditioning]


# A community LoRA


def kohya(family: str, part: str, seed: int = 0, rank: int = 3, alpha: float = 1.5) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(a LoRA file as kohya's scripts name it, what it adds to which model key).

    part: "attention" or "first conv".
    """
    table = {key: shape for key, shape in UNETS[family].items() if _in_loras(key)}
    names = [f"lora_unet_{key.removesuffix('.weight').replace('.', '_')}" for key in table]
    if family == "sd15":  # there, kohya's names are those of diffusers
        diffusers = {key: name for name, key in comfy.utils.unet_to_diffusers(CONFIGS[family][1]).items()}
        names = [f"lora_unet_{diffusers[key].removesuffix('.weight').replace('.', '_')}" for key in table]
    file: dict[str, Tensor] = {}
    changes: dict[str, Tensor] = {}
    for name, (key, shape) in zip(names, table.items(), strict=True):
        if (f"diffusion_model.{key}" == FIRST_CONV) != (part == "first conv"):
            continue
        down = seeded_noise(f"{key} down", (rank, *shape[1:]), seed) / shape[1] ** 0.5
        up = seeded_noise(f"{key} up", (shape[0], rank, *(1 for _ in shape[2:])), seed) * 0.5
        file |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(alpha)}
        changes[f"diffusion_model.{key}"] = (up.flatten(1) @ down.flatten(1)).view(shape) * (alpha / rank)
    return file, changes


def _in_loras(key: str) -> bool:
    return ".attn" in key and key.endswith(".weight") or f"diffusion_model.{key}" == FIRST_CONV


def load_lora(model: ModelPatcher, file: dict[str, Tensor], strength: float = 1.0) -> ModelPatcher:
    """The host's own LoRA loader."""
    return comfy.sd.load_lora_for_models(model, None, file, strength, 0.0)[0]


def scaled(changes: Mapping[str, Tensor], strength: float) -> dict[str, Tensor]:
    return {key: change * strength for key, change in changes.items()}


# Sampling by hand


def denoised(model: ModelPatcher, x: Tensor, sigma: float, text: Conditioning, **settings: Any) -> Tensor:
    """What an unpatched model takes a noisy latent for, in the model's own scale."""
    rows = len(x)
    model.model.current_patcher = model
    options = {"cond_or_uncond": [0], "sigmas": torch.tensor([sigma])}
    context = comfy.utils.repeat_to_batch_size(text[0][0], rows)
    return model.model.apply_model(x, torch.full((rows,), sigma), c_crossattn=context, transformer_options=options, **settings)


def euler(model: ModelPatcher, denoise: Callable[[Tensor, float], Tensor], start: Tensor, steps: int) -> Tensor:
    """Euler's method with the "normal" schedule, from pure noise, as `sample` does it."""
    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", steps).tolist()
    x = start * (1 + sigmas[0] ** 2) ** 0.5
    for sigma, following in pairwise(sigmas):
        x = x + (x - denoise(x, sigma)) / sigma * (following - sigma)
    return model.model.process_latent_out(x)


def switching(model: ModelPatcher, other: ModelPatcher, chosen: Callable[[float], bool]) -> ModelPatcher:
    """A model that hands every step whose sigma is `chosen` to another, unpatched one."""

    def step(apply_model: Callable[..., Tensor], args: dict[str, Any]) -> Tensor:
        run = other.model.apply_model if chosen(float(args["timestep"].max())) else apply_model
        return run(args["input"], args["timestep"], **args["c"])

    result = model.clone()
    result.set_model_unet_function_wrapper(step)
    return result


def chunks_of(model: ModelPatcher) -> tuple[ModelPatcher, list[list[int]]]:
    """A clone of `model` and, filled while it samples, the parts of the guidance (0 positive, 1 negative) of each of its batches."""
    seen: list[list[int]] = []

    def step(apply_model: Callable[..., Tensor], args: dict[str, Any]) -> Tensor:
        seen.append(list(args["cond_or_uncond"]))
        return apply_model(args["input"], args["timestep"], **args["c"])

    result = model.clone()
    result.set_model_unet_function_wrapper(step)
    return result, seen


def result_of(output: Any) -> Any:
    """The first output of a node of either kind."""
    return output[0] if isinstance(output, tuple) else output.result[0]


def area(conditioning: Conditioning, part: Sequence[int]) -> Conditioning:
    """ConditioningSetArea for a part of the latent: height, width, y, x."""
    height, width, y, x = (8 * side for side in part)
    return core.ConditioningSetArea().append(conditioning, width, height, x, y, 1.0)[0]


def crop(x: Tensor, part: Sequence[int], scale: int = 1) -> Tensor:
    height, width, top, left = (scale * side for side in part)
    return x[..., top : top + height, left : left + width]
