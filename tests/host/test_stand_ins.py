"""The stand-ins behave in the host as the models that they stand in for."""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.model_detection
import comfy.sd
import comfy.utils
import pytest
import torch
from comfy_extras.nodes_clip_sdxl import CLIPTextEncodeSDXL
from comfy_extras.nodes_custom_sampler import BasicGuider, BasicScheduler, KSamplerSelect, RandomNoise, SamplerCustomAdvanced
from comfy_extras.nodes_flux import CLIPTextEncodeFlux, FluxGuidance
from comfy_extras.nodes_model_advanced import ModelSamplingFlux
from comfy_extras.nodes_upscale_model import UpscaleModelLoader
from safetensors import safe_open
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from dev import stand_ins
from dev.stand_ins import shapes
from dev.stand_ins.models import CLASSES, build_clip, build_controlnet, build_model
from dev.stand_ins.report import alive, report
from dev.stand_ins.swap import swap_prompt
from dev.stand_ins.vae import build_vae
from dev.stand_ins.weights import write_all
from lib_layerdiffuse.nets.attention_sharing import AttentionSharing

# ComfyUI's own module: this repository has a folder of that name.
core: Any = importlib.import_module("nodes")
functorch: Any = importlib.import_module("torch._functorch.config")


each_family = pytest.mark.parametrize("family", shapes.FAMILIES)
each_unet = pytest.mark.parametrize("family", ["SDXL", "SD1.5"])


@pytest.fixture(autouse=True)
def _as_the_host_runs_nodes() -> Iterator[None]:
    with torch.inference_mode():
        yield


def encode(family: str, text: str) -> list[Any]:
    return core.CLIPTextEncode().encode(build_clip(family, 0), text)[0]


def sample(model: Any, family: str, positive: Any, negative: Any, size: int = 128, batch: int = 1, steps: int = 2) -> Tensor:
    latent = {"samples": torch.zeros(batch, CLASSES[family].latent_format.latent_channels, size // 8, size // 8)}
    cfg = 1.0 if family == "Flux" else 5.0
    return core.common_ksampler(model, 0, steps, cfg, "euler", "normal", positive, negative, latent)[0]["samples"]


def first(output: Any) -> Any:
    """The first output of a V3 node."""
    return output.result[0]


# Nodes


def test_entry_point_offers_loaders_with_the_outputs_of_the_host() -> None:
    async def schemas() -> dict[str, Any]:
        extension = await stand_ins.comfy_entrypoint()
        return {node.GET_SCHEMA().node_id: node for node in await extension.get_node_list()}

    loaders = asyncio.run(schemas())
    expected = {
        "StandInCheckpoint": core.CheckpointLoaderSimple,
        "StandInModel": core.UNETLoader,
        "StandInCLIP": core.DualCLIPLoader,
        "StandInVAE": core.VAELoader,
        "StandInControlNet": core.ControlNetLoader,
        "StandInUpscaler": UpscaleModelLoader,
    }
    # These stand in for nothing: the soak asks them.
    assert loaders.keys() == expected.keys() | {"StandInAgain", "StandInReport"}
    for name in expected:
        node = loaders[name]
        assert tuple(node.RETURN_TYPES) == tuple(expected[name].RETURN_TYPES), name
        # The frontend would add a "randomize" widget to anything named seed that does not say otherwise.
        assert node.INPUT_TYPES()["required"]["seed"][1]["control_after_generate"] is False
    assert len(loaders["StandInCheckpoint"].execute(family="SD1.5", seed=1).result) == 3


def test_report_tells_what_is_left_in_a_model() -> None:
    model = build_model("SD1.5", 0)
    network = model.model.diffusion_model
    before = report(model)
    assert (before["hooks"], before["patches"]) == (0, [])
    assert report(build_model("SD1.5", 0))["weights"] == before["weights"] != report(build_model("SD1.5", 1))["weights"]

    hook = network.register_forward_hook(lambda *_: None)
    network.out[0].forward = network.out[0].forward
    found = report(model)
    assert (found["hooks"], found["patches"]) == (1, ["diffusion_model.out.0"])
    hook.remove()
    del network.out[0].forward

    kept = build_model("SD1.5", 2)
    found = report(model)
    assert found["models"] == before["models"] + 1
    size = sum(tensor.nbytes for tensor in kept.model.state_dict().values())
    assert abs(found["tensor_bytes"] - before["tensor_bytes"] - size) < size / 20
    network.out[0].bias[0] += 1
    assert report(model)["weights"] != before["weights"]


def test_report_looks_past_what_a_compiler_leaves() -> None:
    real = torch.empty(1000)
    gc.collect()
    before = sum(alive().values())
    # As torch.compile makes them: they refuse to give an address.
    with functorch.patch(fake_tensor_allow_unsafe_data_ptr_access=False), FakeTensorMode():
        fake = torch.empty(1000)
    functional = torch._to_functional_tensor(real)  # pyright: ignore[reportPrivateImportUsage]
    for left in (fake, functional):
        with pytest.raises(RuntimeError, match="data pointer"):
            left.untyped_storage().data_ptr()
    assert sum(alive().values()) == before


def test_swapping_touches_loaders_only() -> None:
    prompt = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "juggernaut.safetensors"}},
        "2": {"class_type": "LoraLoader", "inputs": {"lora_name": "x", "strength_model": 1.0, "model": ["1", 0], "clip": ["1", 1]}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "an apple", "clip": ["2", 1]}},
    }
    swapped = swap_prompt(prompt, "SDXL")
    assert swapped["1"] == {"class_type": "StandInCheckpoint", "inputs": {"family": "SDXL", "seed": 0}}
    assert swapped["2"]["inputs"] == prompt["2"]["inputs"] | {"lora_name": "stand_in_lora_sdxl.safetensors"}
    assert swapped["3"] == prompt["3"]
    assert prompt["1"]["class_type"] == "CheckpointLoaderSimple"


# Models


@each_family
def test_sampling_is_finite_varied_and_the_same_for_every_build(family: str) -> None:
    positive, negative = encode(family, "a glass bottle"), encode(family, "")
    first, second = (sample(build_model(family, 0), family, positive, negative) for _ in range(2))
    assert torch.equal(first, second)
    assert first.isfinite().all()
    assert first.std(dim=(2, 3)).min() > 0
    scaled = build_model(family, 0).model.process_latent_in(first)
    assert 0.3 < scaled.std() < 5
    assert not torch.allclose(first, sample(build_model(family, 1), family, positive, negative))
    assert not torch.allclose(first, sample(build_model(family, 0), family, encode(family, "a red fox"), negative))


def test_flux_runs_through_the_advanced_sampling_nodes() -> None:
    model = ModelSamplingFlux().patch(build_model("Flux", 0), 1.15, 0.5, 128, 128)[0]
    text = first(CLIPTextEncodeFlux.execute(build_clip("Flux", 0), "a bottle", "a glass bottle on a table", 3.5))
    sampler: Any = SamplerCustomAdvanced
    results = []
    for guidance in (3.5, 30.0):
        guided = first(FluxGuidance.execute(text, guidance))
        sigmas = first(BasicScheduler.execute(model, "simple", 2, 1.0))
        latent = {"samples": torch.zeros(1, 16, 16, 16)}
        parts = (RandomNoise.execute(1), BasicGuider.execute(model, guided), KSamplerSelect.execute("euler"))
        results.append(first(sampler.execute(*map(first, parts), sigmas, latent))["samples"])
    assert results[0].isfinite().all() and results[0].std() > 0
    assert not torch.allclose(*results)


@each_unet
def test_controlnet_changes_the_result(family: str) -> None:
    model, positive, negative = build_model(family, 0), encode(family, "a bottle"), encode(family, "")
    image = torch.rand(1, 128, 128, 3)
    controlled = core.ControlNetApplyAdvanced().apply_controlnet(positive, negative, build_controlnet(family, 0), image, 1.0, 0.0, 1.0)
    result = sample(model, family, *controlled)
    assert result.isfinite().all()
    assert not torch.allclose(result, sample(model, family, positive, negative))


# Text


@each_family
def test_text_encoding_depends_on_the_words_and_has_the_right_widths(family: str) -> None:
    clip = build_clip(family, 0)
    (one, extra), (other, _) = (core.CLIPTextEncode().encode(clip, text)[0][0] for text in ("a red apple", "a blue bird"))
    assert one.shape[-1] == shapes.unet_config(family)["context_dim" if family != "Flux" else "context_in_dim"]
    assert extra["pooled_output"].shape[-1] == {"SDXL": 1280, "SD1.5": 48, "Flux": 32}[family]
    assert not torch.allclose(one, other)
    assert torch.equal(one, core.CLIPTextEncode().encode(build_clip(family, 0), "a red apple")[0][0][0])


@each_unet
def test_long_texts_skipped_layers_and_joined_conditioning(family: str) -> None:
    clip = build_clip(family, 0)
    short = core.CLIPTextEncode().encode(clip, "a red apple")[0]
    long = core.CLIPTextEncode().encode(clip, "word " * 90)[0]
    assert (short[0][0].shape[1], long[0][0].shape[1]) == (77, 154)
    assert core.ConditioningConcat().concat(short, long)[0][0][0].shape[1] == 231
    earlier = core.CLIPTextEncode().encode(core.CLIPSetLastLayer().set_last_layer(clip, -3)[0], "a red apple")[0]
    assert not torch.allclose(earlier[0][0], short[0][0])


def test_sdxl_sizes_reach_the_model() -> None:
    clip, model, negative = build_clip("SDXL", 0), build_model("SDXL", 0), encode("SDXL", "")
    results = []
    for width in (512, 1024):
        sized = first(CLIPTextEncodeSDXL.execute(clip, width, 1024, 0, 0, 1024, 1024, "an apple", "an apple"))
        results.append(sample(model, "SDXL", sized, negative))
    assert not torch.allclose(*results)


# VAE


@each_family
def test_vae_pools_and_repeats(family: str) -> None:
    vae, channels = build_vae(family, 0), CLASSES[family].latent_format.latent_channels
    picture = torch.rand(2, 8, 12, 3).repeat_interleave(8, 1).repeat_interleave(8, 2)
    latent = core.VAEEncode().encode(vae, picture)[0]["samples"]
    assert latent.shape == (2, channels, 8, 12)
    decoded = core.VAEDecode().decode(vae, {"samples": latent})[0]
    torch.testing.assert_close(decoded, picture, atol=1e-4, rtol=0)
    tiled = core.VAEDecodeTiled().decode(vae, {"samples": latent}, 64, 0)[0]
    torch.testing.assert_close(tiled, picture, atol=1e-4, rtol=0)
    torch.testing.assert_close(core.VAEEncodeTiled().encode(vae, picture, 64, 0)[0]["samples"], latent, atol=1e-4, rtol=0)
    assert hasattr(vae.first_stage_model, "quant_conv") == (family != "Flux")


# Files


@each_unet
def test_unets_are_those_of_the_parity_data(family: str) -> None:
    weights = build_model(family, 0).model.diffusion_model.state_dict()
    assert {key: tuple(tensor.shape) for key, tensor in weights.items()} == shapes.unet_shapes(family)
    assert comfy.model_detection.detect_unet_config(weights, "").items() <= shapes.unet_config(family).items()


def test_tables_of_files_are_those_of_the_parity_data() -> None:
    for frames in (1, 3):
        assert shapes.attention_sharing_shapes(frames, control=False) == shapes.table(f"narrow_attention_sharing_plain_f{frames}_shapes")
    released = shapes.table("narrow_attention_sharing_control_f2_shapes")
    narrow = shapes.attention_sharing_shapes(2, control=True)
    assert narrow.keys() == released.keys()
    assert AttentionSharing.from_shapes(narrow, device="meta").state_dict().keys() == released.keys()
    for channels, name in ((4, "sd"), (16, "flux")):
        assert shapes.transparent_decoder_shapes(channels).keys() == shapes.table(f"decoder_{name}_shapes").keys()
        assert shapes.offset_encoder_shapes(channels).keys() == shapes.table(f"encoder_{name}_shapes").keys()


def test_files_have_the_released_counts_and_precision(models_folder: Path) -> None:
    counts = {
        "layer_xl_transparent_attn": 1120,
        "layer_xl_transparent_conv": 1252,
        "layer_xl_bgble2fg": 1252,
        "layer_xl_fg2ble": 206,
        "layer_xl_bg2ble": 206,
        "layer_xl_fgble2bg": 206,
        "vae_transparent_decoder": 538,
        "vae_transparent_encoder": 18,
        "layer_sd15_vae_transparent_decoder": 538,
        "layer_sd15_vae_transparent_encoder": 18,
    }
    files = sorted(models_folder.glob("**/*.safetensors"))
    assert len(files) == 17
    for path in files:
        with safe_open(path, framework="pt") as file:
            keys = list(file.keys())
            assert len(keys) == counts.get(path.stem, len(keys))
            for tensor in map(file.get_tensor, keys):
                assert tensor.dtype == torch.float16 and tensor.isfinite().all()
    flux = torch.load(models_folder / "layer_model" / "TransparentVAE.pth", weights_only=True)
    assert {key.split(".")[0] for key in flux} == {"decoder", "encoder", "sd_vae"}
    assert flux["decoder.latent_conv_in.weight"].shape[1] == 16
    assert flux["decoder.latent_conv_in.weight"].dtype == torch.bfloat16


def test_files_are_written_once_and_the_same_every_time(models_folder: Path, tmp_path: Path) -> None:
    written = {path: path.stat().st_mtime_ns for path in models_folder.glob("**/*") if path.is_file()}
    write_all(models_folder)
    assert written == {path: path.stat().st_mtime_ns for path in models_folder.glob("**/*") if path.is_file()}
    write_all(tmp_path)
    for path in written:
        if path.suffix == ".safetensors":
            assert path.read_bytes() == (tmp_path / path.relative_to(models_folder)).read_bytes(), path.name
    (tmp_path / "loras" / "stand_in_lora_sd15.safetensors").unlink()
    write_all(tmp_path)
    assert (tmp_path / "loras" / "stand_in_lora_sd15.safetensors").is_file()


def test_foreign_files_are_never_replaced(tmp_path: Path) -> None:
    real = tmp_path / "layer_model" / "layer_sd15_joint.safetensors"
    real.parent.mkdir()
    real.write_bytes(b"half a gigabyte")
    write_all(tmp_path)
    assert real.read_bytes() == b"half a gigabyte"


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("SDXL", "loras/stand_in_lora_sdxl.safetensors"),
        ("SD1.5", "loras/stand_in_lora_sd15.safetensors"),
        ("Flux", "layer_model/layerlora.safetensors"),
    ],
)
def test_host_loads_every_key_of_the_loras(family: str, name: str, models_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    lora = comfy.utils.load_torch_file(str(models_folder / name), safe_load=True)
    model, clip = build_model(family, 0), build_clip(family, 0)
    with caplog.at_level(logging.WARNING):
        patched, patched_clip = comfy.sd.load_lora_for_models(model, clip, lora, 1.0, 1.0)
    assert "NOT LOADED" not in caplog.text and "not loaded" not in caplog.text
    assert patched is not None and patched.patches
    assert patched_clip is not None
    assert bool(patched_clip.patcher.patches) == (family != "Flux")
    positive = core.CLIPTextEncode().encode(patched_clip, "an apple")[0]
    plain = encode(family, "an apple")
    assert torch.allclose(positive[0][0], plain[0][0]) == (family == "Flux")
    assert not torch.allclose(sample(patched, family, plain, plain), sample(model, family, plain, plain))
