"""Decoding and encoding with alpha through ComfyUI's memory management, on small networks."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dev.stand_ins.seeded import seeded_weights
from dev.stand_ins.shapes import offset_encoder_shapes
from dev.stand_ins.vae import build_vae
from lib_layerdiffuse.comfyui.alpha import alpha_vae
from lib_layerdiffuse.comfyui.alpha.alpha_vae import SIZE_KEY, AlphaVAE
from lib_layerdiffuse.comfyui.alpha.codec import decode_rgba, encode_rgba
from lib_layerdiffuse.comfyui.alpha.managed_network import ManagedNetwork
from lib_layerdiffuse.comfyui.alpha.posterior import encode_posterior
from lib_layerdiffuse.comfyui.alpha.transparent_vae import TransparentVAE, opaque_vae
from lib_layerdiffuse.errors import DiaphaneError
from lib_layerdiffuse.nets.offset_encoder import OffsetEncoder
from lib_layerdiffuse.nets.transparent_decoder import TransparentDecoder
from lib_layerdiffuse.pixels.bleed import bleed_rgb
from lib_layerdiffuse.pixels.straight import on_grey
from lib_layerdiffuse.weights.catalogue import Family
from tests.host.networks import Pointwise, _inference, decoder, managed, picture

__all__ = ["_inference", "decoder"]


@pytest.fixture(scope="module")
def encoder() -> ManagedNetwork[OffsetEncoder]:
    return ManagedNetwork(OffsetEncoder, seeded_weights(offset_encoder_shapes(4)))


@pytest.fixture(scope="module")
def vae() -> Any:
    return build_vae("SDXL", 0)


@pytest.fixture
def decode(decoder: ManagedNetwork[TransparentDecoder], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tensor]:
    """decode(vae, samples, images=None, **settings) -> rgba, with the test's decoder in place of a file."""
    monkeypatch.setattr(alpha_vae, "transparency_decoder", lambda *args: decoder)
    return lambda vae, *args, **kwargs: AlphaVAE(vae, Family.SD15).decode(*args, **kwargs).rgba


@pytest.fixture
def encode(encoder: ManagedNetwork[OffsetEncoder], monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, Tensor], dict[str, Any]]:
    """encode(vae, rgba) -> a LATENT, with the test's encoder in place of a file."""
    monkeypatch.setattr(alpha_vae, "offset_encoder", lambda *args: encoder)
    return lambda vae, rgba: AlphaVAE(vae, Family.SDXL).encode(rgba)


def test_inputs_are_not_changed(vae: Any, decode: Callable[..., Tensor], encode: Callable[..., dict[str, Any]]) -> None:
    rgba = picture(64, 64)
    samples = {"samples": torch.randn(1, 4, 8, 8), "layers": ("foreground",)}
    before = rgba.clone(), samples["samples"].clone(), dict(samples)
    encode(vae, rgba)
    decode(vae, samples, rgba[..., :3])
    decode(vae, samples, rgba)
    assert torch.equal(rgba, before[0]) and torch.equal(samples["samples"], before[1]) and samples.keys() == before[2].keys()


def test_layers_decide_what_is_transparent(vae: Any, decode: Callable[..., Tensor]) -> None:
    samples: dict[str, Any] = {"samples": torch.randn(6, 4, 8, 16, generator=torch.Generator().manual_seed(2))}
    plain = decode(vae, samples)
    named = decode(vae, samples | {"layers": ("foreground", "background", "blended")})
    for row in range(6):
        if row % 3 == 0:
            assert torch.allclose(named[row], plain[row], atol=1e-5)
        else:
            assert torch.equal(named[row, ..., 3], torch.ones(64, 128))
            assert torch.allclose(named[row, ..., :3], vae.decode(samples["samples"])[row])
    assert torch.equal(decode(vae, samples | {"layers": ("background",)})[..., 3], torch.ones(6, 64, 128))
    # Rows that the host has cut out of a batch keep what they were.
    cut = {"samples": samples["samples"][2:4], "layers": ("foreground", "background", "blended"), "batch_index": [2, 3]}
    assert torch.allclose(decode(vae, cut), named[2:4], atol=1e-5)


def test_a_stray_layer_of_a_cut_batch_has_its_own_name(vae: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alpha_vae, "transparency_decoder", lambda *args: managed(Pointwise()))
    cut = {"layers": ("foreground", "background", "blended"), "batch_index": [2, 3]}
    for level, stray in ((-1.0, "blended"), (1.0, None)):  # alpha is 0, or 1
        samples = cut | {"samples": torch.full((2, 4, 8, 8), level)}
        assert AlphaVAE(vae, Family.SD15).decode(samples, passes=1).stray == stray


def test_latents_and_images_of_different_batches(vae: Any, decode: Callable[..., Tensor]) -> None:
    with pytest.raises(DiaphaneError, match="Got 2 images and 3 latents"):
        decode(vae, {"samples": torch.zeros(3, 4, 8, 8)}, picture(64, 64, batch=2, channels=3))


def test_latent_of_another_family(decode: Callable[..., Tensor]) -> None:
    with pytest.raises(DiaphaneError, match="The latent has 4 channels, this VAE decodes 16"):
        decode(build_vae("Flux", 0), {"samples": torch.zeros(1, 4, 8, 8)})


@pytest.mark.parametrize("family", ["SDXL", "Flux"])
def test_posterior(family: str) -> None:
    vae = build_vae(family, 0)
    pixels = picture(64, 96, batch=3, channels=3)
    mean, std = encode_posterior(vae, pixels)
    assert torch.equal(mean, vae.encode(pixels))
    assert vae.first_stage_model is not None
    moments: list[Tensor] = []
    handle = vae.first_stage_model.regularization.register_forward_pre_hook(lambda module, args: moments.append(args[0]))  # pyright: ignore
    vae.encode(pixels)
    handle.remove()
    assert torch.allclose(std, torch.exp(0.5 * moments[0].chunk(2, dim=1)[1]))
    assert not vae.first_stage_model.regularization._forward_pre_hooks  # pyright: ignore
    tiled_mean, tiled_std = encode_posterior(vae, pixels, tile=64)
    assert torch.allclose(tiled_mean, mean, atol=1e-4) and torch.allclose(tiled_std, std, rtol=1e-4)


def test_encode_is_mean_and_scaled_offset(vae: Any, encoder: ManagedNetwork[OffsetEncoder]) -> None:
    rgba = picture(64, 128, batch=2)
    mean, std = encode_posterior(vae, on_grey(rgba))
    image = torch.cat((rgba[..., 3:], bleed_rgb(rgba)), dim=-1).movedim(-1, 1)
    expected = mean + std * 300.0 * encoder.network(image)
    assert torch.allclose(encode_rgba(vae, encoder, rgba), expected, atol=1e-5)
    assert torch.equal(encode_rgba(vae, encoder, rgba, offset_scale=0.0), mean)
    assert not torch.allclose(expected, mean, atol=1e-2)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size", [(128, 128), (200, 140), (64, 264), (13, 9)])
def test_round_trip_keeps_the_size(
    vae: Any, decode: Callable[..., Tensor], encode: Callable[..., dict[str, Any]], size: tuple[int, int], batch: int
) -> None:
    samples = encode(vae, picture(*size, batch=batch))
    assert samples[SIZE_KEY] == size
    assert decode(vae, samples, passes=1).shape == (batch, *size, 4)
    bigger = samples | {"samples": nn.functional.interpolate(samples["samples"], scale_factor=2)}
    assert decode(vae, bigger, passes=1).shape[1:3] == tuple(16 * -(-side // 8) for side in size)


def test_transparent_vae(vae: Any, decoder: ManagedNetwork[TransparentDecoder], encoder: ManagedNetwork[OffsetEncoder]) -> None:
    transparent = TransparentVAE(vae, decoder, encoder, passes=1)
    latent = torch.randn(2, 4, 8, 16)
    rgba = transparent.decode(latent)
    assert torch.allclose(rgba, decode_rgba(decoder, vae.decode(latent), latent, passes=1))
    assert torch.equal(transparent.encode(rgba), encode_rgba(vae, encoder, rgba))
    opaque = torch.cat((rgba[..., :3], torch.ones_like(rgba[..., :1])), dim=-1)
    assert torch.equal(transparent.encode(rgba[..., :3]), encode_rgba(vae, encoder, opaque))
    assert transparent.encode(picture(71, 130)).shape == (1, 4, 8, 16)
    assert transparent.first_stage_model is vae.first_stage_model and transparent.patcher is vae.patcher
    assert opaque_vae(transparent) is vae and opaque_vae(vae) is vae
