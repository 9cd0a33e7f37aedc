"""Every network computes on a device where its weights are not."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from typing import Any

import comfy.ops
import pytest
import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import nn

import lib_layerdiffuse.nets
from lib_layerdiffuse.nets import transparent_decoder
from lib_layerdiffuse.nets.attention_sharing import PROJECTIONS, AttentionSharing
from lib_layerdiffuse.nets.eight_passes import estimate_rgba
from lib_layerdiffuse.nets.offset_encoder import OffsetEncoder
from lib_layerdiffuse.nets.transparent_decoder import TransparentDecoder
from tests.conftest import GOLDEN
from tests.devices.elsewhere import DEVICE, elsewhere, fake

# batch, height, width of a picture: whole, beyond what a strip holds, and several
SIZES = ((1, 512, 512), (1, 704, 704), (1, 1024, 1024), (4, 512, 512), (1, 2048, 2048))
TYPES = (torch.float16, torch.bfloat16)
NETWORKS = {
    TransparentDecoder: ("decoder_sd", "decoder_flux"),
    OffsetEncoder: ("encoder_sd", "encoder_flux"),
    AttentionSharing: tuple(f"narrow_attention_sharing_{name}" for name in ("plain_f1", "plain_f3", "control_f2")),
}


def cases(network_class: type[nn.Module]) -> list[tuple[str, torch.dtype, tuple[int, int, int]]]:
    """All sizes and types for the first of a network's files; the others differ in numbers of channels and frames."""
    first, *others = NETWORKS[network_class]
    return [*product([first], TYPES, SIZES), *((name, torch.float16, SIZES[2]) for name in others), (first, torch.float32, SIZES[2])]


@cache
def build(network_class: Any, file: str, dtype: torch.dtype, multiplied: bool = False) -> Any:
    """A network with its weights on the CPU."""
    shapes = {key: tuple(shape) for key, shape in json.loads((GOLDEN / f"{file}_shapes.json").read_text()).items()}
    with elsewhere():
        network = network_class.from_shapes(shapes, comfy.ops.manual_cast, dtype=dtype, device="cpu").eval()
        for unit in network.units if multiplied else ():
            unit.multiply_out(DEVICE, merged=False)
    return network


@pytest.mark.parametrize(("file", "dtype", "size"), cases(TransparentDecoder))
def test_decoder(file: str, dtype: torch.dtype, size: tuple[int, int, int]) -> None:
    batch, height, width = size
    with elsewhere():
        decoder = build(TransparentDecoder, file, dtype)
        pixel = fake(batch, 3, height, width, dtype=dtype)
        latent = fake(batch, decoder.layout.latent_channels, height // 8, width // 8, dtype=dtype)
        result = decoder(pixel, latent)
    assert (result.shape, result.dtype, result.device) == ((batch, 4, height, width), dtype, DEVICE)


def test_decoder_where_attention_holds_its_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Apple's devices: no call makes more scores than are held at a time."""
    monkeypatch.setattr(transparent_decoder, "FUSED_ATTENTION", ())
    attend, made = torch.nn.functional.scaled_dot_product_attention, []

    def watched(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        made.append(q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2])
        return attend(q, k, v)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    with elsewhere():
        decoder = build(TransparentDecoder, "decoder_sd", torch.float16)
        result = decoder(fake(2, 3, 1024, 1024, dtype=torch.float16), fake(2, 4, 128, 128, dtype=torch.float16))
    assert result.device == DEVICE and max(made) == transparent_decoder.SCORES


def test_estimate() -> None:
    with elsewhere():
        decoder = build(TransparentDecoder, "decoder_sd", torch.float16)
        result = estimate_rgba(decoder, fake(1, 3, 128, 64, dtype=torch.float16), fake(1, 4, 16, 8, dtype=torch.float16))
    assert (result.shape, result.dtype, result.device) == ((1, 4, 128, 64), torch.float32, DEVICE)


@pytest.mark.parametrize(("file", "dtype", "size"), cases(OffsetEncoder))
def test_encoder(file: str, dtype: torch.dtype, size: tuple[int, int, int]) -> None:
    batch, height, width = size
    with elsewhere():
        encoder = build(OffsetEncoder, file, dtype)
        result = encoder(fake(batch, 4, height, width, dtype=dtype))
    assert (result.shape, result.dtype, result.device) == ((batch, encoder.latent_channels, height // 8, width // 8), dtype, DEVICE)


@pytest.mark.parametrize("multiplied", [False, True])
@pytest.mark.parametrize(("file", "dtype", "size"), cases(AttentionSharing))
def test_attention_sharing(file: str, dtype: torch.dtype, size: tuple[int, int, int], multiplied: bool) -> None:
    sets, height, width = size
    with elsewhere():
        sharing = build(AttentionSharing, file, dtype, multiplied)
        tokens = height * width // 64
        for unit in sharing.units[:2]:
            x = fake(sets * sharing.frames, tokens, unit.channels, dtype=dtype)
            mixed = unit.temporal(x, 4, attention_pytorch)
            assert (mixed.shape, mixed.dtype, mixed.device) == (x.shape, dtype, DEVICE)
            for projection in PROJECTIONS:
                channels = unit.context_dim if projection in "kv" else unit.channels
                change = unit.change(projection, fake(sets * sharing.frames, tokens, channels, dtype=dtype))
                assert (change.shape[:2], change.device) == (x.shape[:2], DEVICE)
        if sharing.kwargs_encoder is not None:
            maps = sharing.kwargs_encoder(fake(1, 3, height, width, dtype=dtype))
            assert sharing.units[0].control(maps[0]).shape == (1, sharing.frames, tokens, sharing.units[0].channels)


def network_classes() -> Iterator[type[nn.Module]]:
    for info in pkgutil.iter_modules(lib_layerdiffuse.nets.__path__):
        module = importlib.import_module(f"lib_layerdiffuse.nets.{info.name}")
        yield from (found for found in vars(module).values() if isinstance(found, type) and found.__module__ == module.__name__)


def test_no_network_is_left_out() -> None:
    built = [build(network_class, file, torch.float16) for network_class, files in NETWORKS.items() for file in files]
    tried = {type(module) for network in built for module in network.modules()}
    assert {found for found in network_classes() if issubclass(found, nn.Module)} <= tried


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda: nn.Linear(4, 4)(fake(1, 4)), id="a weight beside a tensor of another device"),
        pytest.param(lambda: fake(1, dtype=torch.float64), id="a number of 64 bits"),
        pytest.param(lambda: torch.zeros(2, dtype=torch.float64).to(DEVICE), id="moved before it is cast"),
    ],
)
def test_these_tests_can_fail(wrong: Callable[[], Any]) -> None:
    with elsewhere(), pytest.raises((RuntimeError, TypeError)):
        wrong()
