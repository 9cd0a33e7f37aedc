"""Pictures are decoded, encoded and bled on the VAE's device, whole and in tiles, and come back to where ComfyUI keeps pictures."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import comfy.model_management as memory
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

from lib_layerdiffuse.comfyui.alpha import codec as transparency
from lib_layerdiffuse.comfyui.alpha import managed_network as networks
from lib_layerdiffuse.comfyui.alpha.managed_network import ManagedNetwork
from lib_layerdiffuse.nets.offset_encoder import OffsetEncoder
from lib_layerdiffuse.nets.transparent_decoder import TransparentDecoder
from tests.devices.elsewhere import DEVICE, elsewhere, fake
from tests.devices.test_networks import build

CPU = torch.device("cpu")
each_way = pytest.mark.parametrize(("dtype", "tile"), [(torch.float16, 0), (torch.bfloat16, 0), (torch.float16, 128)])


@pytest.fixture(autouse=True)
def _vae_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the VAE's device were another one, whose memory holds everything."""
    monkeypatch.setattr(memory, "vae_device", lambda: DEVICE)
    monkeypatch.setattr(memory, "vae_offload_device", lambda: CPU)
    monkeypatch.setattr(memory, "intermediate_device", lambda: CPU)
    monkeypatch.setattr(memory, "load_models_gpu", lambda *_, **__: None)
    monkeypatch.setattr(networks, "CoreModelPatcher", ModelPatcher)
    monkeypatch.setattr(ModelPatcher, "get_free_memory", lambda *_: 1 << 40)


def managed(network: nn.Module, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> ManagedNetwork:
    monkeypatch.setattr(memory, "vae_dtype", lambda *_: dtype)
    return ManagedNetwork(type(network), network.state_dict())


@each_way
def test_decode(dtype: torch.dtype, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with elsewhere():
        decoder = managed(build(TransparentDecoder, "decoder_sd", dtype), dtype, monkeypatch)
        rgba = transparency.decode_rgba(decoder, fake(1, 150, 190, 3, device=CPU), fake(1, 4, 19, 24, device=CPU), passes=1, tile=tile)
    assert (decoder.device, rgba.shape, rgba.dtype, rgba.device) == (DEVICE, (1, 150, 190, 4), torch.float32, CPU)


def test_decode_at_the_size_of_sdxl(monkeypatch: pytest.MonkeyPatch) -> None:
    with elsewhere():
        decoder = managed(build(TransparentDecoder, "decoder_sd", torch.float16), torch.float16, monkeypatch)
        rgba = transparency.decode_rgba(decoder, fake(2, 1024, 1024, 3, device=CPU), fake(2, 4, 128, 128, device=CPU), passes=2)
    assert (rgba.shape, rgba.device) == ((2, 1024, 1024, 4), CPU)


@each_way
def test_encode(dtype: torch.dtype, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with elsewhere():
        encoder = managed(build(OffsetEncoder, "encoder_sd", dtype), dtype, monkeypatch)
        mean = fake(1, 4, 24, 16, device=CPU)
        monkeypatch.setattr(transparency, "encode_posterior", lambda *_, **__: (mean, mean))
        vae = object()
        latent = transparency.encode_rgba(vae, encoder, fake(1, 192, 128, 4, device=CPU), tile=tile)
    assert (encoder.device, latent.shape, latent.device) == (DEVICE, (1, 4, 24, 16), CPU)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_bleed(dtype: torch.dtype) -> None:
    with elsewhere():
        rgb = transparency.bleed(fake(2, 512, 384, 4, dtype=dtype, device=CPU))
    assert (rgb.shape, rgb.dtype, rgb.device) == ((2, 512, 384, 3), torch.float32, CPU)
