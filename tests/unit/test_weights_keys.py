"""The key grammar, on the tables of the released files and on their narrow stand-ins."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lib_layerdiffuse.errors import DiaphaneError
from lib_layerdiffuse.weights import keys as grammar
from lib_layerdiffuse.weights.identify import looks_like

GOLDEN = Path(__file__).parents[1] / "golden"
CONV_IN = "diffusion_model.input_blocks.0.0.weight::diff::0"
DECODER, ENCODER = "a transparency decoder", "an offset encoder"
ONE = "SD1.5 attention sharing of 1 layer (transparent image)"
TWO = "SD1.5 attention sharing of 2 layers beside a given one"
THREE = "SD1.5 attention sharing of 3 layers (joint)"
ATTENTION = "an SDXL delta file (attention, transparent image)"
CONV = "an SDXL delta file (that changes the first convolution)"
LORA = "a LoRA (for ComfyUI's own Load LoRA node)"

KINDS = {
    "facts/offset_encoder": ENCODER,
    "facts/sd15_attention_sharing_f1": ONE,
    "facts/sd15_attention_sharing_f2_control": TWO,
    "facts/sd15_attention_sharing_f3": THREE,
    "facts/transparent_decoder": DECODER,
    "facts/xl_fg2ble": CONV,
    "facts/xl_transparent_attn": ATTENTION,
    "facts/xl_transparent_conv": CONV,
    "decoder_flux_shapes": DECODER,
    "decoder_sd_shapes": DECODER,
    "encoder_flux_shapes": ENCODER,
    "encoder_sd_shapes": ENCODER,
    "narrow_attention_sharing_control_f2_shapes": TWO,
    "narrow_attention_sharing_plain_f1_shapes": ONE,
    "narrow_attention_sharing_plain_f3_shapes": THREE,
    "narrow_sdxl_bgble2fg_shapes": CONV,
    "narrow_sdxl_fg2ble_shapes": CONV,
    "narrow_sdxl_transparent_attn_shapes": ATTENTION,
    "narrow_sdxl_transparent_conv_shapes": CONV,
    "narrow_sd15_unet_shapes": "a UNet",
    "narrow_sdxl_unet_shapes": "a UNet",
}
DELTAS = ["narrow_sdxl_transparent_attn", "narrow_sdxl_transparent_conv", "narrow_sdxl_fg2ble", "narrow_sdxl_bgble2fg"]
SHARING = {"plain_f1": (1, 0), "plain_f3": (3, 0), "control_f2": (2, 3)}


def table(name: str) -> dict[str, tuple[int, ...]]:
    content = json.loads((GOLDEN / f"{name}.json").read_text())
    return {key: tuple(shape) for key, shape in content.get("tensors", content).items()}


def zeros(name: str) -> dict[str, Tensor]:
    return {key: torch.zeros(shape) for key, shape in table(name).items()}


def prefixed(**parts: dict) -> dict:
    return {f"{prefix}.{key}": value for prefix, part in parts.items() for key, value in part.items()}


def message(function, *args: object) -> str:
    with pytest.raises(DiaphaneError) as caught:
        function(*args)
    return str(caught.value)


def flux_vae() -> dict[str, Tensor]:
    vae = {"encoder.conv_in.weight": torch.zeros(128, 3, 3, 3), "decoder.conv_in.weight": torch.zeros(512, 16, 3, 3)}
    return prefixed(sd_vae=vae, encoder=zeros("encoder_flux_shapes"), decoder=zeros("decoder_flux_shapes"))


# looks_like


def test_every_table_is_known_here() -> None:
    tables = [*GOLDEN.glob("*_shapes.json"), *GOLDEN.glob("facts/*.json")]
    assert {path.relative_to(GOLDEN).with_suffix("").as_posix() for path in tables} == set(KINDS)


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_what_tables_look_like(name: str, kind: str) -> None:
    assert looks_like(table(name)) == f"It looks like {kind}."


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (["first_stage_model.decoder.conv_in.weight", "model.diffusion_model.input_blocks.0.0.weight"], "a whole checkpoint"),
        (["double_blocks.0.img_attn.qkv.weight"], "a Flux model"),
        (["conv_in.weight", "time_embedding.linear_1.weight"], "a UNet"),
        (["transformer.single_transformer_blocks.0.attn.to_k.lora_A.weight"], LORA),
        (["lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"], LORA),
        (["encoder.conv_in.weight", "decoder.conv_in.weight"], "a VAE"),
    ],
)
def test_what_keys_look_like(keys: list[str], kind: str) -> None:
    assert looks_like(keys) == f"It looks like {kind}."


def test_what_the_flux_vae_and_a_stranger_look_like() -> None:
    assert looks_like(flux_vae()) == "It looks like a TransparentVAE (transparency decoder and offset encoder)."
    assert looks_like(["something"]) == looks_like([]) == "It is no kind of file that Diaphane knows."


FRAGMENTS = st.sampled_from(
    ["a", ".", "::", "::lora::", "::diff::", "0", "1", "blocks.", "decoder.", "encoder.", "latent_conv_in.weight", "conv_in.weight"]
    + ["hookers.layers.", ".to_q_lora.", ".down.weight", "weight", "input_blocks.0.0.", CONV_IN]
)
KEYS = st.lists(FRAGMENTS, max_size=5).map("".join)


@given(st.dictionaries(KEYS, st.lists(st.integers(0, 3), max_size=4).map(tuple), max_size=6))
def test_nothing_but_diaphane_errors_ever(shapes: dict[str, tuple[int, ...]]) -> None:
    looks_like(shapes)
    tensors = {key: torch.zeros(shape) for key, shape in shapes.items()}
    for function in (grammar.parse_deltas, grammar.transparency_parts, grammar.sharing_frames):
        try:
            function(tensors)
        except DiaphaneError as error:
            assert "\n" not in str(error)


# deltas


@pytest.mark.parametrize("name", DELTAS)
def test_deltas_account_for_each_key(name: str) -> None:
    spec = importlib.util.spec_from_file_location("seeded", GOLDEN / "seeded.py")
    assert spec and spec.loader
    seeded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(seeded)
    state_dict = {key: torch.from_numpy(value) for key, value in seeded.seeded_state_dict(table(f"{name}_shapes")).items()}

    deltas = grammar.parse_deltas(state_dict)
    back = {}
    for key, delta in deltas.items():
        assert delta.key == key
        parts = {"lora::0": delta.up, "lora::1": delta.down, "diff::0": delta.diff}
        back |= {f"{key}::{part}": value for part, value in parts.items() if value is not None}
    assert back.keys() == state_dict.keys()
    assert all(back[key] is state_dict[key] for key in state_dict)


def test_deltas_of_the_released_attention_file() -> None:
    state_dict = {key: torch.empty(shape, device="meta") for key, shape in table("facts/xl_transparent_attn").items()}
    deltas = grammar.parse_deltas(state_dict)
    assert len(deltas) == 560
    for delta in deltas.values():
        assert delta.up is not None and delta.down is not None and delta.diff is None
        assert delta.up.shape[1] == delta.down.shape[0] == 256


def test_one_key_may_have_both_kinds() -> None:
    parts = {"k::lora::0": torch.ones(3, 2), "k::lora::1": torch.ones(2, 5), "k::diff::0": torch.ones(3, 5)}
    delta = grammar.parse_deltas(parts)["k"]
    assert (delta.up, delta.down, delta.diff) == tuple(parts.values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k::lora::0": (3, 2)}, ["is incomplete", "misses k::lora::1"]),
        ({"k::lora::1": (3, 2)}, ["misses k::lora::0"]),
        ({f"{k}::lora::0": (3, 2) for k in "abcde"}, ["misses a::lora::1, b::lora::1, c::lora::1 and 2 more"]),
        ({"k::loha::0": (3,)}, ["not a LayerDiffuse delta file: it has k::loha::0, not MODEL_KEY::lora::0"]),
        ({"k::lora::2": (3,)}, ["it has k::lora::2, not MODEL_KEY"]),
        ({"k::diff::1": (3,)}, ["it has k::diff::1, not MODEL_KEY"]),
        ({"k::diff::0": (3,), "stray": (1,)}, [": it has stray, not MODEL_KEY"]),
        ({"k::lora::0": (3, 2), "k::lora::1": (4, 5)}, ["k: up [3, 2] and down [4, 5] do not fit"]),
        ({"k::lora::0": (3, 2, 1), "k::lora::1": (2, 5)}, ["up [3, 2, 1] and down [2, 5] do not fit"]),
        ({"k::lora::0": (3, 2), "k::lora::1": (2, 5), "k::diff::0": (3, 4)}, ["diff [3, 4] does not fit up @ down [3, 5]"]),
        ({}, ["an empty one"]),
    ],
)
def test_broken_deltas(change: dict, words: list[str]) -> None:
    text = message(grammar.parse_deltas, {key: torch.zeros(shape) for key, shape in change.items()})
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("name", "kind"),
    [("decoder_sd_shapes", DECODER), ("encoder_flux_shapes", ENCODER), ("narrow_attention_sharing_plain_f3_shapes", THREE),
     ("narrow_sd15_unet_shapes", "a UNet")],
)  # fmt: skip
def test_other_files_given_as_deltas(name: str, kind: str) -> None:
    text = message(grammar.parse_deltas, zeros(name))
    assert f"It looks like {kind}." in text and " more, not MODEL_KEY" in text


# decoder and encoder


def test_parts_of_bare_files() -> None:
    for kind, channels in (("sd", 4), ("flux", 16)):
        decoder, encoder = zeros(f"decoder_{kind}_shapes"), zeros(f"encoder_{kind}_shapes")
        assert grammar.transparency_parts(decoder) == grammar.TransparencyParts(decoder, None)
        assert grammar.transparency_parts(encoder) == grammar.TransparencyParts(None, encoder)
        assert grammar.decoder_latent_channels(decoder) == grammar.encoder_latent_channels(encoder) == channels


def test_parts_of_the_flux_vae() -> None:
    parts = grammar.transparency_parts(flux_vae())
    assert parts.decoder is not None and parts.decoder.keys() == table("decoder_flux_shapes").keys()
    assert parts.encoder is not None and parts.encoder.keys() == table("encoder_flux_shapes").keys()
    alone = grammar.transparency_parts(prefixed(decoder=zeros("decoder_flux_shapes")))
    assert alone.decoder is not None and alone.encoder is None


def test_parts_of_other_files() -> None:
    vae = {"encoder.conv_in.weight": torch.zeros(128, 3, 3, 3), "decoder.conv_in.weight": torch.zeros(512, 4, 3, 3)}
    assert "It looks like a VAE." in message(grammar.transparency_parts, vae)
    assert f"It looks like {CONV}." in message(grammar.transparency_parts, zeros("narrow_sdxl_fg2ble_shapes"))
    assert "It is no kind of file that Diaphane knows." in message(grammar.transparency_parts, {"x": torch.zeros(1)})
    assert ": it has stray." in message(grammar.transparency_parts, flux_vae() | {"stray": torch.zeros(1)})


def test_channels_of_the_wrong_part() -> None:
    decoder, encoder = zeros("decoder_sd_shapes"), zeros("encoder_sd_shapes")
    assert f"not a transparency decoder. It looks like {ENCODER}." in message(grammar.decoder_latent_channels, encoder)
    assert f"not an offset encoder. It looks like {DECODER}." in message(grammar.encoder_latent_channels, decoder)


# attention sharing


@pytest.mark.parametrize(("name", "expected"), SHARING.items())
def test_sharing(name: str, expected: tuple[int, int]) -> None:
    state_dict = zeros(f"narrow_attention_sharing_{name}_shapes")
    assert (grammar.sharing_frames(state_dict), grammar.sharing_control_channels(state_dict)) == expected


def test_a_brush_reads_an_area_and_its_precision() -> None:
    brush = zeros("narrow_attention_sharing_control_f2_shapes")
    first = "kwargs_encoder.blocks_0.0.weight"
    brush |= {first: torch.zeros(len(brush[first]), 5, 3, 3), "mask_head.weight": torch.zeros(64, 32, 3, 3)}
    assert grammar.sharing_control_channels(brush) == 5
    assert "It looks like attention sharing of 2 layers beside a given one and an area" in message(grammar.parse_deltas, brush)


def test_sharing_refuses_other_files() -> None:
    decoder = zeros("decoder_sd_shapes")
    assert f"It looks like {DECODER}." in message(grammar.sharing_frames, decoder)


def test_sharing_with_a_hole() -> None:
    state_dict = zeros("narrow_attention_sharing_plain_f3_shapes")
    del state_dict["hookers.layers.7.to_q_lora.1.down.weight"]
    assert "layer 7 lacks one of 3 frames" in message(grammar.sharing_frames, state_dict)


# check_keys


def test_check_keys() -> None:
    grammar.check_keys(["a", "b"], ["b", "a"], "a thing")
    assert message(grammar.check_keys, ["a"], ["a", "b"], "a thing") == "This is not a thing: it misses b. Choose another file."
    text = message(grammar.check_keys, "uvwxyz", "abcde", "a thing")
    assert text == "This is not a thing: it misses a, b, c and 2 more and has unknown u, v, w and 3 more. Choose another file."


def test_check_keys_guesses() -> None:
    text = message(grammar.check_keys, zeros("encoder_sd_shapes"), table("decoder_sd_shapes"), "a transparency decoder")
    assert text.startswith("This is not a transparency decoder: it misses conv_in.weight, conv_in.bias, latent_conv_in.weight and 535 more")
    assert f"It looks like {ENCODER}." in text
