"""Small networks under the host's memory management: where they lie, what they ask for, and results that are no numbers."""

# The host is not typed.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import comfy.model_management as memory
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from torch import Tensor, nn

from dev.stand_ins.seeded import seeded_weights
from dev.stand_ins.shapes import offset_encoder_shapes
from dev.stand_ins.vae import build_vae
from lib_layerdiffuse.comfyui.alpha import managed_network as networks
from lib_layerdiffuse.comfyui.alpha.attempts import plans, raise_non_oom
from lib_layerdiffuse.comfyui.alpha.codec import decode_rgba, encode_rgba
from lib_layerdiffuse.comfyui.alpha.managed_network import ManagedNetwork
from lib_layerdiffuse.comfyui.alpha.transparent_vae import TransparentVAE
from lib_layerdiffuse.comfyui.patch.attention_sharing import share_attention
from lib_layerdiffuse.errors import DiaphaneError
from lib_layerdiffuse.nets import transparent_decoder
from lib_layerdiffuse.nets.offset_encoder import OffsetEncoder
from lib_layerdiffuse.nets.transparent_decoder import DecoderLayout, SelfAttention
from tests.host.reference import stand_in_sharing

LAYOUT = DecoderLayout(
    channels=(32, 32, 64, 128, 256, 512, 512),
    attention=(False,) * 4 + (True,) * 3,
    resnets=2,
    pixel_channels=3,
    latent_channels=4,
    out_channels=4,
)


@pytest.fixture
def encoder() -> ManagedNetwork[OffsetEncoder]:
    return ManagedNetwork(OffsetEncoder, seeded_weights(offset_encoder_shapes(4)))


class Overflowing(nn.Module):
    """A decoder that gives what is no number in every type in `types`."""

    layout = LAYOUT

    def __init__(self, *types: torch.dtype):
        super().__init__()
        self.types = types
        self.seen: list[torch.dtype] = []

    def forward(self, pixel: Tensor, latent: Tensor) -> Tensor:
        self.seen.append(pixel.dtype)
        return torch.cat((pixel[:, :1], pixel), dim=1) * (torch.nan if pixel.dtype in self.types else 1.0)


def managed(network: nn.Module, dtype: torch.dtype = torch.float32) -> Any:
    made = ManagedNetwork(SimpleNamespace(from_shapes=lambda *_, **__: network), {})  # pyright: ignore[reportArgumentType]
    made.dtype = dtype
    return made


def test_what_overflows_is_computed_again_in_float32(caplog: pytest.LogCaptureFixture) -> None:
    network = Overflowing(torch.float16)
    decoder = managed(network, torch.float16)
    pixels = torch.rand(2, 64, 64, 3)
    with caplog.at_level(logging.WARNING):
        first = decode_rgba(decoder, pixels, None, passes=1)
    torch.testing.assert_close(first[..., :3], pixels)
    assert "float32" in caplog.text
    # The next run knows.
    network.seen.clear()
    assert torch.equal(decode_rgba(decoder, pixels, None, passes=1), first)
    assert set(network.seen) == {torch.float32}


def test_what_is_no_number_in_float32_either_is_told() -> None:
    decoder = managed(Overflowing(torch.float16, torch.float32), torch.float16)
    with pytest.raises(DiaphaneError, match="The transparency decoder gives results that are not all numbers"):
        decode_rgba(decoder, torch.rand(1, 64, 64, 3), None, passes=1)
    assert decoder.dtype == torch.float16


@pytest.mark.parametrize("wrong", ["pixels", "latent"])
def test_what_comes_in_is_not_taken_for_the_networks_doing(
    wrong: str, encoder: ManagedNetwork[OffsetEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Overflowing()
    decoder, pixels, latent = managed(network, torch.float16), torch.rand(1, 64, 64, 3), torch.zeros(1, 4, 8, 8)
    (pixels if wrong == "pixels" else latent)[0, 1, 1, 1] = torch.nan
    monkeypatch.setattr(VAE, "decode", lambda *_: pixels)
    with pytest.raises(DiaphaneError, match="not all numbers") as told:
        TransparentVAE(build_vae("SDXL", 0), decoder, encoder, passes=1).decode(latent)
    assert "decoder" not in str(told.value) and (network.seen, decoder.dtype) == ([], torch.float16)


@pytest.mark.parametrize("text", ["MPS backend out of memory (MPS allocated: 9.00 GB)", "Invalid buffer size: 34.00 GB"])
def test_apples_errors_are_known(text: str) -> None:
    raise_non_oom(RuntimeError(text))
    with pytest.raises(RuntimeError, match="another"):
        raise_non_oom(RuntimeError("another"))


def test_an_offset_that_overflows_is_computed_again(encoder: ManagedNetwork[OffsetEncoder]) -> None:
    vae, rgba = build_vae("SDXL", 0), torch.rand(1, 64, 64, 4)
    expected = encode_rgba(vae, encoder, rgba)
    whole = encoder.network.forward
    encoder.network.forward = lambda image: whole(image) if image.dtype == torch.float32 else whole(image.float()) * torch.inf
    encoder.dtype = torch.bfloat16
    torch.testing.assert_close(encode_rgba(vae, encoder, rgba), expected)


@pytest.mark.parametrize("device", ["mps", "cpu", "cuda"])
def test_devices_that_tell_no_one_are_asked_beforehand(
    device: str, encoder: ManagedNetwork[OffsetEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "load_models_gpu", lambda *_, **__: None)
    monkeypatch.setattr(memory, "get_free_memory", lambda *_: pytest.fail("the patcher knows what can be made free, too"))
    monkeypatch.setattr(encoder.patcher, "get_free_memory", lambda *_: 999)
    encoder.device = torch.device(device)
    first = next(plans(encoder, "encode", (2, 600, 600), 0, lambda pixels: 1000))
    assert (first.tile, [*first.batches]) == (0 if device == "cuda" else 256, [slice(0, 1), slice(1, 2)])


def test_what_is_finished_is_not_computed_again(encoder: ManagedNetwork[OffsetEncoder], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "load_models_gpu", lambda *_, **__: None)
    monkeypatch.setattr(encoder.patcher, "get_free_memory", lambda *_: 4000)
    tried: list[tuple[int, int, int]] = []
    for plan in plans(encoder, "encode", (8, 300, 300), 0, lambda pixels: 1000):
        for rows in plan.batches:
            tried.append((plan.tile, rows.start, rows.stop))
            if len(tried) in (2, 4, 5):
                break  # as if memory ran out
        else:
            break
    whole = [(0, 0, 4), (0, 4, 8), (0, 4, 6), (0, 6, 8), (0, 6, 7)]
    assert tried == [*whole, (256, 0, 4), (256, 4, 8)]


def test_attention_is_counted_where_its_scores_are_held() -> None:
    side = 1024
    assert LAYOUT.attention_scores(torch.device("cuda"), side * side) == 0
    tokens = (side // 16) ** 2
    assert LAYOUT.attention_scores(torch.device("mps"), side * side // 4) == 32 * (tokens // 4) ** 2
    assert LAYOUT.attention_scores(torch.device("mps"), side * side) == transparent_decoder.SCORES < 32 * tokens**2


def test_attention_for_some_queries_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    attention, x = SelfAttention(32, nn), torch.randn(2, 32, 12, 10)
    whole = attention(x)
    monkeypatch.setattr(transparent_decoder, "FUSED_ATTENTION", ())
    monkeypatch.setattr(transparent_decoder, "SCORES", 2 * 4 * 120 * 7)
    calls: list[int] = []
    attend = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", lambda q, k, v: calls.append(q.shape[2]) or attend(q, k, v))
    torch.testing.assert_close(attention(x), whole)
    assert max(calls) == 7 and sum(calls) == 120


def test_networks_lie_where_their_vae_does() -> None:
    vae = ModelPatcher(nn.Linear(1, 1), load_device=torch.device("meta"), offload_device=torch.device("cpu"))
    network = ManagedNetwork(OffsetEncoder, seeded_weights(offset_encoder_shapes(4)), vae)
    assert network.device == network.patcher.load_device == torch.device("meta")


@pytest.mark.parametrize("disable_dynamic", [False, True])
def test_the_host_can_have_a_network_made_anew(encoder: ManagedNetwork[OffsetEncoder], disable_dynamic: bool) -> None:
    factory, arguments = encoder.patcher.cached_patcher_init[:2]
    another = factory(*arguments, disable_dynamic=disable_dynamic)
    assert another.model is not encoder.network and not another.is_dynamic()
    for key, tensor in encoder.network.state_dict().items():
        assert torch.equal(another.model.state_dict()[key], tensor)


class Dynamic(ModelPatcher):
    def is_dynamic(self) -> bool:
        return True


def addresses(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    return {key: tensor.data_ptr() for key, tensor in tensors.items()}


def test_under_dynamic_memory_a_file_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    weights: Mapping[str, Tensor] = seeded_weights(offset_encoder_shapes(4))
    plain = ManagedNetwork(OffsetEncoder, weights)
    monkeypatch.setattr(networks, "CoreModelPatcher", Dynamic)
    mapped = ManagedNetwork(OffsetEncoder, weights)
    assert addresses(mapped.network.state_dict()) == addresses(weights)
    assert addresses(plain.network.state_dict()).items().isdisjoint(addresses(weights).items())


def test_under_dynamic_memory_attention_sharing_is_not_copied(
    narrow_model: Callable[[str], ModelPatcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = stand_in_sharing(2, control=True)
    monkeypatch.setattr(networks, "CoreModelPatcher", Dynamic)
    patched = share_attention(narrow_model("sd15"), weights, control=torch.rand(1, 64, 64, 3))
    [sharing] = patched.get_additional_models()
    own = addresses(sharing.model.state_dict())
    given = addresses(weights)
    # All but what is multiplied with one another beforehand.
    assert all(own[key] == given[key] for key in given if key.startswith("kwargs_encoder.") or "temporal_o" in key)
