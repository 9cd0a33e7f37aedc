"""Strips of rows give what the whole map gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lib_layerdiffuse.nets import strips
from lib_layerdiffuse.nets.transparent_decoder import DecoderLayout, TransparentDecoder

WIDE = nn.GroupNorm(4, 24)


@pytest.fixture(autouse=True)
def _strips_of_eight_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "STRIP_VALUES", 1)


@pytest.fixture
def conv() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(24, 16, 3, padding=1)


def maps(*widths: int, height: int, batch: int = 2, last: bool = True) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    layout = torch.channels_last if last else torch.contiguous_format
    found = (torch.randn(batch, width, height, 20, generator=generator) * 3 + 5 for width in widths)
    return [x.contiguous(memory_format=layout) for x in found]


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("height", [8, 9, 16, 23, 40])
@pytest.mark.parametrize("widths", [(24,), (16, 8), (13, 11)])
@torch.no_grad()
def test_norm_activation_and_convolution(conv: nn.Conv2d, widths: tuple[int, ...], height: int, last: bool) -> None:
    parts = maps(*widths, height=height, last=last)
    before = [part.clone() for part in parts]
    whole = conv(nn.functional.silu(WIDE(torch.cat(parts, dim=1))))
    torch.testing.assert_close(strips.norm_silu_conv(parts, WIDE, conv), whole, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(part, kept) for part, kept in zip(parts, before, strict=True))


@pytest.mark.parametrize("height", [8, 30])
@torch.no_grad()
def test_the_result_may_take_the_place_of_what_is_added(conv: nn.Conv2d, height: int) -> None:
    [inner] = maps(24, height=height)
    below, skip = maps(16, 4, height=height)
    shortcut = nn.Conv2d(20, 16, 1)
    whole = conv(nn.functional.silu(WIDE(inner))) + shortcut(torch.cat([below, skip], dim=1))
    kept = skip.clone()
    result = strips.norm_silu_conv([inner], WIDE, conv, plus=[below, skip], shortcut=shortcut, into=below)
    torch.testing.assert_close(result, whole, rtol=1e-4, atol=1e-4)
    assert torch.equal(skip, kept)


@pytest.mark.parametrize("height", [8, 9, 31])
@torch.no_grad()
def test_upsampling(conv: nn.Conv2d, height: int) -> None:
    [x] = maps(24, height=height)
    whole = conv(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))
    torch.testing.assert_close(strips.upsample_conv(x, conv), whole, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_map_without_variance(conv: nn.Conv2d) -> None:
    flat = torch.full((1, 24, 32, 20), 7.0)
    torch.testing.assert_close(strips.norm_silu_conv([flat], WIDE, conv), conv(nn.functional.silu(WIDE(flat))), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_decoder_gives_the_same_with_and_without_gradients(dtype: torch.dtype) -> None:
    """Without, it works in strips and overwrites what it needs no more."""
    torch.manual_seed(0)
    layout = DecoderLayout((16, 16, 24, 32), (False, False, False, True), 2, 3, 4, 4)
    decoder = TransparentDecoder(layout).to(dtype).eval()
    pixel, latent = torch.rand(2, 3, 128, 64, dtype=dtype), torch.randn(2, 4, 16, 8, dtype=dtype)
    expected = decoder(pixel, latent).detach()
    with torch.no_grad():
        result = decoder(pixel, latent)
        torch.testing.assert_close(decoder(pixel, latent), result, rtol=0, atol=0)
    tolerance = 1e-5 if dtype == torch.float32 else 0.03
    assert (result - expected).abs().max() < tolerance * expected.abs().max()
