"""The mini family's latent transparency, in the host: what is encoded comes back, and the offset is what carries it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_layerdiffuse.comfyui.alpha.codec import decode_rgba, encode_rgba
from lib_layerdiffuse.comfyui.alpha.loading import offset_encoder, transparency_decoder
from lib_layerdiffuse.comfyui.models.mini import load_mini
from lib_layerdiffuse.pixels.straight import on_grey
from lib_layerdiffuse.weights.catalogue import Family
from training.data.sprites import draw_ambiguous_pairs, draw_any, paint
from training.losses import psnr

from .reference import as_the_host_runs

SIDE = 128
SEED = 7001  # far from those of training


@pytest.fixture(scope="module", autouse=True)
def _host() -> Iterator[None]:
    with as_the_host_runs():
        yield


@pytest.fixture(scope="module")
def vae() -> Any:
    return load_mini()[2]


@pytest.fixture(scope="module")
def named() -> Tensor:
    """Sprites of the kinds that captions have words for [B, H, W, 4]."""
    return paint(draw_any(24, torch.Generator().manual_seed(SEED)), SIDE).movedim(1, -1)


@pytest.fixture(scope="module")
def pairs() -> Tensor:
    """Sheer bright sprites and solid muted ones that look the same on mid-grey [B, H, W, 4]."""
    sheer, muted = draw_ambiguous_pairs(12, torch.Generator().manual_seed(SEED))
    return torch.cat([paint(sheer, SIDE), paint(muted, SIDE)]).movedim(1, -1)


@pytest.fixture(scope="module")
def latent(vae: Any, named: Tensor) -> Tensor:
    return encoded(vae, named)


@pytest.fixture(scope="module")
def estimate(vae: Any, latent: Tensor) -> Tensor:
    return decoded(vae, latent)


def encoded(vae: Any, rgba: Tensor, scale: float = 300.0) -> Tensor:
    return encode_rgba(vae, offset_encoder(vae, Family.SD15), rgba, offset_scale=scale)


def decoded(vae: Any, latent: Tensor) -> Tensor:
    return decode_rgba(transparency_decoder(vae, Family.SD15), vae.decode(latent), latent)


def alpha_error(estimate: Tensor, rgba: Tensor) -> float:
    return float((estimate[..., 3] - rgba[..., 3]).abs().mean())


def test_what_is_encoded_comes_back(named: Tensor, estimate: Tensor) -> None:
    alpha = named[..., 3:]
    colour = ((estimate[..., :3] - named[..., :3]).abs() * alpha).sum() / (3 * alpha.sum())
    assert alpha_error(estimate, named) <= 0.01
    assert colour <= 0.02


def test_the_offset_tells_apart_what_looks_the_same(vae: Any, pairs: Tensor) -> None:
    with_offset = alpha_error(decoded(vae, encoded(vae, pairs)), pairs)
    without = alpha_error(decoded(vae, encoded(vae, pairs, scale=0.0)), pairs)
    assert with_offset <= 0.01
    assert without >= 3 * with_offset


def test_the_vae_hardly_sees_the_offset(vae: Any, named: Tensor, latent: Tensor) -> None:
    seen = on_grey(named)
    plain, adjusted = (float(psnr(vae.decode(one), seen).mean()) for one in (encoded(vae, named, 0.0), latent))
    assert plain - adjusted <= 0.3


def test_a_part_of_the_offset_may_be_missing(vae: Any, named: Tensor, latent: Tensor, estimate: Tensor) -> None:
    plain = encoded(vae, named, 0.0)
    present = torch.rand(len(named), 1, *plain.shape[2:], generator=torch.Generator().manual_seed(SEED)) >= 0.3
    partial = decoded(vae, plain + (latent - plain) * present)
    assert alpha_error(partial, named) <= 1.5 * alpha_error(estimate, named)
