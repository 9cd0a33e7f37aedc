"""The networks and the colour bleed against the published implementations (README.md beside this file)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lib_layerdiffuse.nets.eight_passes import alpha_first, estimate_rgba
from lib_layerdiffuse.nets.offset_encoder import OffsetEncoder
from lib_layerdiffuse.nets.transparent_decoder import TransparentDecoder
from lib_layerdiffuse.pixels.bleed import bleed_rgb

Golden = Callable[[str], dict[str, Tensor]]
Seeded = Callable[..., dict[str, Tensor]]

CASES = ("case0", "case1")


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module", params=["sd", "flux"])
def decoder(request: pytest.FixtureRequest, seeded: Seeded) -> tuple[str, TransparentDecoder]:
    weights = seeded(f"decoder_{request.param}")
    weights["conv_out.weight"] *= 0.25
    weights["conv_out.bias"] += 0.5
    return request.param, TransparentDecoder.from_state_dict(weights)


def test_decoder_has_the_released_size(decoder: tuple[str, TransparentDecoder]) -> None:
    family, network = decoder
    assert sum(p.numel() for p in network.parameters()) == 104_104_804 + (12 * 64 if family == "flux" else 0)
    assert network.layout.multiple == 64


@pytest.mark.parametrize("case", CASES)
def test_single_pass(decoder: tuple[str, TransparentDecoder], golden: Golden, case: str) -> None:
    family, network = decoder
    data = golden(f"decoder_{family}")
    assert torch.allclose(network(data[f"{case}.pixel"], data[f"{case}.latent"]), data[f"{case}.single_pass"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_eight_pass_estimate(decoder: tuple[str, TransparentDecoder], golden: Golden, case: str) -> None:
    family, network = decoder
    data = golden(f"decoder_{family}")
    estimate = estimate_rgba(network, data[f"{case}.pixel"], data[f"{case}.latent"])
    assert torch.allclose(estimate, data[f"{case}.augmented_median"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", ["sd", "flux"])
def test_offset(golden: Golden, seeded: Seeded, family: str, case: str) -> None:
    encoder = OffsetEncoder.from_state_dict(seeded(f"encoder_{family}"))
    data = golden(f"encoder_{family}")
    rgba = data[f"{case}.rgba_uint8"][None].float() / 255
    parts = (rgba[..., 3:], bleed_rgb(rgba))
    image = torch.cat(parts if alpha_first(encoder.latent_channels) else parts[::-1], dim=-1).movedim(-1, 1)
    assert torch.allclose(encoder(image), data[f"{case}.offset"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_bleed(golden: Golden, case: str) -> None:
    data = golden("encoder_sd")
    rgba = data[f"{case}.rgba_uint8"][None].float() / 255
    assert torch.allclose(bleed_rgb(rgba)[0], data[f"{case}.padded_rgb"], atol=1e-5, rtol=0)
