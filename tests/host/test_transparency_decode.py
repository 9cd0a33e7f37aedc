"""decode_rgba: any size and batch, in the memory that there is, in tiles where that is too little."""

# pyright: reportMissingImports=false
from __future__ import annotations

import logging
import weakref

import comfy.model_management as memory
import pytest
import torch
from torch import Tensor, nn

from lib_layerdiffuse.comfyui.alpha.codec import decode_rgba
from lib_layerdiffuse.comfyui.alpha.managed_network import ManagedNetwork
from lib_layerdiffuse.errors import DiaphaneError
from lib_layerdiffuse.nets.eight_passes import estimate_rgba
from lib_layerdiffuse.nets.transparent_decoder import DecoderLayout, TransparentDecoder
from tests.host.networks import Pointwise, _inference, decoder, latent_for, managed, picture

__all__ = ["_inference", "decoder"]

SIZES = [(128, 128), (200, 136), (64, 1088), (8, 8)]


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
