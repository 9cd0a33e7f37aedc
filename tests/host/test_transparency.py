"""Decoding and encoding with alpha through ComfyUI's memory management, on small networks."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import comfy.model_management as memory
import pytest
import torch
from torch import Tensor, nn

from dev.stand_ins.seeded import seeded_weights
from dev.stand_ins.shapes import offset_encoder_shapes, transparent_decoder_shapes
from dev.stand_ins.vae import build_vae
from dev.stand_ins.weights import transparent_decoder
from lib_layerdiffuse.comfyui.alpha import alpha_vae
from lib_layerdiffuse.comfyui.alpha.alpha_vae import SIZE_KEY, AlphaVAE
from lib_layerdiffuse.comfyui.alpha.codec import decode_rgba, encode_rgba
from lib_layerdiffuse.comfyui.alpha.managed_network import ManagedNetwork
from lib_layerdiffuse.comfyui.alpha.posterior import encode_posterior
from lib_layerdiffuse.comfyui.alpha.transparent_vae import TransparentVAE, opaque_vae
from lib_layerdiffuse.errors import DiaphaneError
from lib_layerdiffuse.nets.eight_passes import estimate_rgba
from lib_layerdiffuse.nets.offset_encoder import OffsetEncoder
from lib_layerdiffuse.nets.transparent_decoder import DecoderLayout, TransparentDecoder
from lib_layerdiffuse.pixels.bleed import bleed_rgb
from lib_layerdiffuse.pixels.straight import on_grey
from lib_layerdiffuse.weights.catalogue import Family

SIZES = [(128, 128), (200, 136), (64, 1088), (8, 8)]


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def decoder() -> ManagedNetwork[TransparentDecoder]:
    return ManagedNetwork(TransparentDecoder, transparent_decoder(transparent_decoder_shapes(4), "test"))


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


def picture(height: int, width: int, batch: int = 1, channels: int = 4, seed: int = 0) -> Tensor:
    return torch.rand(batch, height, width, channels, generator=torch.Generator().manual_seed(seed))


def latent_for(pixels: Tensor, channels: int = 4) -> Tensor:
    height, width = (-(-side // 8) for side in pixels.shape[1:3])
    return torch.randn(len(pixels), channels, height, width, generator=torch.Generator().manual_seed(1))


class Pointwise(nn.Module):
    """A decoder whose result depends on nothing but the pixel itself, so that tiles and batches cannot change it."""

    layout = DecoderLayout(channels=(8,) * 7, attention=(False,) * 7, resnets=2, pixel_channels=3, latent_channels=4, out_channels=4)

    def __init__(self, fails: Callable[[Tensor], bool] = lambda pixel: False):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.fails = fails
        self.batches: list[tuple[int, ...]] = []

    def forward(self, pixel: Tensor, latent: Tensor) -> Tensor:
        self.batches.append(tuple(pixel.shape))
        if self.fails(pixel):
            raise memory.OOM_EXCEPTION("injected")
        alpha = latent.mean(dim=1, keepdim=True).repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
        return torch.cat((alpha, pixel), dim=1)


def managed(network: nn.Module) -> Any:
    class Made:
        @staticmethod
        def from_shapes(shapes: Mapping[str, tuple[int, ...]], ops: Any = None, **factory: Any) -> nn.Module:
            return network

    return ManagedNetwork(Made, network.state_dict())  # pyright: ignore[reportArgumentType]


def exact(pixels: Tensor, latent: Tensor) -> Tensor:
    """What Pointwise has to give for whole pictures."""
    alpha = latent.mean(dim=1).repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)[:, : pixels.shape[1], : pixels.shape[2], None]
    return torch.cat((pixels, alpha.clamp(0, 1)), dim=-1)


@pytest.mark.parametrize("size", SIZES)
def test_any_size_is_padded_and_cropped(decoder: ManagedNetwork[TransparentDecoder], size: tuple[int, int]) -> None:
    pixels = picture(*size, channels=3)
    latent = latent_for(pixels)
    rgba = decode_rgba(decoder, pixels, latent, passes=2)
    below, right = -size[0] % 64, -size[1] % 64
    pixel = nn.functional.pad(pixels.movedim(-1, 1), (0, right, 0, below), mode="replicate")
    padded = nn.functional.pad(latent, (0, right // 8, 0, below // 8), mode="replicate")
    expected = estimate_rgba(decoder.network, pixel, padded, 2)[..., : size[0], : size[1]].movedim(1, -1)
    assert rgba.shape == (1, *size, 4)
    assert torch.equal(rgba, expected[..., [1, 2, 3, 0]])


def test_odd_pixels_of_a_padded_picture() -> None:
    pixels = picture(61, 39, channels=3)
    latent = latent_for(pixels)
    assert torch.allclose(decode_rgba(managed(Pointwise()), pixels, latent), exact(pixels, latent))


def test_batch_equals_single_pictures(decoder: ManagedNetwork[TransparentDecoder]) -> None:
    pixels = picture(64, 128, batch=3, channels=3)
    latent = latent_for(pixels)
    together = decode_rgba(decoder, pixels, latent)
    apart = torch.cat([decode_rgba(decoder, pixels[i : i + 1], latent[i : i + 1]) for i in range(3)])
    assert torch.allclose(together, apart, atol=1e-5)


def test_flux_order_and_channels() -> None:
    network = Pointwise()
    network.layout = DecoderLayout((8,) * 7, (False,) * 7, 2, 3, 16, 4)
    pixels = picture(64, 64, channels=3)
    latent = latent_for(pixels, 16)
    rgba = decode_rgba(managed(network), pixels, latent)
    # Flux files put alpha last: what this network gives first is red.
    assert torch.allclose(rgba, exact(pixels, latent)[..., [3, 0, 1, 2]])


def test_frames_run_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Pointwise()
    pixels = picture(64, 64, batch=16, channels=3)
    latent = latent_for(pixels)
    decode_rgba(managed(network), pixels, latent, passes=1)
    assert network.batches == [(16, 3, 64, 64)]
    bytes_each = 64 * 64 * (16 * 8 * 4 + 2 * 4 * 4)
    monkeypatch.setattr(memory, "get_free_memory", lambda *args: 5.5 * bytes_each)
    network.batches.clear()
    rgba = decode_rgba(managed(network), pixels, latent, passes=1)
    assert [shape[0] for shape in network.batches] == [5, 5, 5, 1]
    assert torch.allclose(rgba, exact(pixels, latent))


def test_out_of_memory_halves_the_batch() -> None:
    network = Pointwise(fails=lambda pixel: len(pixel) > 2)
    pixels = picture(64, 64, batch=5, channels=3)
    latent = latent_for(pixels)
    assert torch.allclose(decode_rgba(managed(network), pixels, latent, passes=1), exact(pixels, latent))
    assert [shape[0] for shape in network.batches] == [5, 3, 2, 2, 1]


def test_what_a_failed_attempt_has_made_is_freed_before_the_next() -> None:
    made: list[weakref.ref[Tensor]] = []

    def fails(pixel: Tensor) -> bool:
        assert all(ref() is None for ref in made)
        made.append(weakref.ref(pixel))
        return len(made) < 4

    pixels = picture(600, 520, batch=2, channels=3)
    decode_rgba(managed(Pointwise(fails)), pixels, latent_for(pixels), passes=1)
    assert len(made) > 4


def test_out_of_memory_falls_back_to_tiles(caplog: pytest.LogCaptureFixture) -> None:
    network = Pointwise(fails=lambda pixel: pixel[0, 0].numel() > 256 * 256)
    pixels = picture(600, 520, channels=3)
    latent = latent_for(pixels)
    with caplog.at_level(logging.WARNING, "diaphane"):
        rgba = decode_rgba(managed(network), pixels, latent, passes=1)
    assert torch.allclose(rgba, exact(pixels, latent), atol=1e-6)
    assert "in tiles of 512" in caplog.text


def test_a_processor_does_not_try_what_cannot_fit(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    network = Pointwise()
    pixels = picture(600, 520, channels=3)
    latent = latent_for(pixels)
    monkeypatch.setattr(memory, "get_free_memory", lambda *args: 1.0)
    with caplog.at_level(logging.WARNING, "diaphane"):
        rgba = decode_rgba(managed(network), pixels, latent, passes=1)
    assert torch.allclose(rgba, exact(pixels, latent), atol=1e-6)
    assert {max(shape[2:]) for shape in network.batches} == {256}, "the smallest tiles are tried whatever is expected of them"
    assert "as a whole" in caplog.text


def test_out_of_memory_for_good_is_one_sentence() -> None:
    pixels = picture(600, 520, channels=3)
    with pytest.raises(DiaphaneError, match=r"Not enough memory to decode a picture of 520x600 in tiles of 256 pixels"):
        decode_rgba(managed(Pointwise(fails=lambda pixel: True)), pixels, latent_for(pixels))


@pytest.mark.parametrize(("tile", "used"), [(128, 128), (1, 64), (8, 64), (65, 128)])
def test_chosen_tiles(decoder: ManagedNetwork[TransparentDecoder], tile: int, used: int) -> None:
    network = Pointwise()
    pixels = picture(320, 200, channels=3)
    latent = latent_for(pixels)
    assert torch.allclose(decode_rgba(managed(network), pixels, latent, passes=1, tile=tile), exact(pixels, latent), atol=1e-6)
    assert max(shape[2] for shape in network.batches) == used
    assert torch.isfinite(decode_rgba(decoder, pixels, latent, passes=1, tile=tile)).all()


def test_other_errors_pass_through() -> None:
    class Broken(Pointwise):
        def forward(self, pixel: Tensor, latent: Tensor) -> Tensor:
            raise ArithmeticError("not about memory")

    with pytest.raises(ArithmeticError):
        decode_rgba(managed(Broken()), picture(64, 64, channels=3), torch.zeros(1, 4, 8, 8))


def test_interrupt(decoder: ManagedNetwork[TransparentDecoder]) -> None:
    memory.interrupt_current_processing()
    with pytest.raises(memory.InterruptProcessingException):
        decode_rgba(decoder, picture(64, 64, channels=3), torch.zeros(1, 4, 8, 8))
    memory.interrupt_current_processing(False)


def test_a_latent_of_another_size_is_left_out(decoder: ManagedNetwork[TransparentDecoder], caplog: pytest.LogCaptureFixture) -> None:
    pixels = picture(128, 192, channels=3)
    with caplog.at_level(logging.INFO, "diaphane"):
        rgba = decode_rgba(decoder, pixels, torch.randn(1, 4, 8, 8), passes=1)
    assert "The latent is made for pictures of 64x64, these are 192x128" in caplog.text
    assert torch.equal(rgba, decode_rgba(decoder, pixels, torch.zeros(1, 4, 16, 24), passes=1))
    assert torch.equal(rgba, decode_rgba(decoder, pixels, None, passes=1))


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
