"""The catalogue agrees with docs/facts.md section 1, and its sizes with the key tables."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from lib_layerdiffuse.errors import DiaphaneError
from lib_layerdiffuse.weights.catalogue import CATALOGUE, Family, Role, WeightFile, lookup

FACTS = Path(__file__).parents[1] / "golden" / "facts"
CONV_IN = "diffusion_model.input_blocks.0.0.weight::diff::0"

# docs/facts.md section 1: name -> (bytes or None where it says "about", sha256)
PUBLISHED = {
    "layer_xl_transparent_attn.safetensors": (743352688, "b7919c5b4837fb64f24c97a7abdf1a9c6e8d60de080a5dae089dde098266df95"),
    "layer_xl_transparent_conv.safetensors": (3619745776, "5ee958d80dcd515fa7ac915274c536fadd3db5d919adeb5ff45107b6169aacc7"),
    "layer_xl_fg2ble.safetensors": (701981624, "50a29851ad56308f14d6c9ed375be17df6921efeca240b31f567f6b8c76d1e70"),
    "layer_xl_bg2ble.safetensors": (701981624, "2901d1353cc4ca763c8bedc48453b36e88680605f417c7f7ec730a7c36845d7c"),
    "layer_xl_fgble2bg.safetensors": (702004664, "179a61fdcdb149af1897b2840f24ba09466ab6265b2c792b0e99df557f0439be"),
    "layer_xl_bgble2fg.safetensors": (3619791856, "1688f0c17447f74662686fadd431f24d26a1ba8ffea322c6f56c8b5ed581b78d"),
    "vae_transparent_decoder.safetensors": (208266320, "59dc8feefe40d26b6cb7186aed7af70c60d94ac4f9db8ebe7f121a01ba27a2fc"),
    "vae_transparent_encoder.safetensors": (2365008, "47d048bd7c6f873b55d123ff424c0b584bbfb8a666f20aa634336e922f5c821c"),
    "layer_sd15_transparent_attn.safetensors": (350266608, "cc9ee87452bf1ccdd419035bf9618f6bdcaac1a2d3e23694d62e5a9c721da295"),
    "layer_sd15_joint.safetensors": (554404208, "2cc81c33c1a786bdc376c6d1bfb43dbdffda2f610f7c6b4ebd776505a29712bd"),
    "layer_sd15_fg2bg.safetensors": (562982312, "5bade856ec3e55d6ceb0e35bbc97cea7fa4953f7776c8032f2fe52ba740ed580"),
    "layer_sd15_bg2fg.safetensors": (562982312, "8367f976da1cc4275e513c7fb40f977ca312e79e720d7db7ae94978a9359fb62"),
    "layer_sd15_vae_transparent_decoder.safetensors": (None, "6df4712dfbb3783231b22f869a5da5cbfea782ebb05f782bd9e8744bfb0cdf03"),
    "layer_sd15_vae_transparent_encoder.safetensors": (None, "4c6bd4fa714bcdc83ee73fac9092f0723c5cafc60befccf490c697c0a378725a"),
    "TransparentVAE.pth": (None, "557c68a36b84ca604b9232824eea720fba002281bd9b0007a444137359538b4e"),
    "layerlora.safetensors": (None, "ffa34d60e92c7bcd6414dc7a8735e27d5138bcda5248b3131329b3f405aadb53"),
}
TABLES = {  # name -> (table, input channels of the first conv)
    "layer_xl_transparent_attn": ("xl_transparent_attn", None),
    "layer_xl_transparent_conv": ("xl_transparent_conv", 4),
    "layer_xl_fg2ble": ("xl_fg2ble", 8),
    "layer_xl_bg2ble": ("xl_fg2ble", 8),
    "layer_xl_fgble2bg": ("xl_fg2ble", 12),
    "layer_xl_bgble2fg": ("xl_transparent_conv", 12),
    "vae_transparent_decoder": ("transparent_decoder", None),
    "vae_transparent_encoder": ("offset_encoder", None),
    "layer_sd15_transparent_attn": ("sd15_attention_sharing_f1", None),
    "layer_sd15_joint": ("sd15_attention_sharing_f3", None),
    "layer_sd15_fg2bg": ("sd15_attention_sharing_f2_control", None),
    "layer_sd15_bg2fg": ("sd15_attention_sharing_f2_control", None),
}


def safetensors_size(shapes: dict[str, list[int]]) -> int:
    """Bytes of an fp16 safetensors file without metadata: 8 + JSON header padded to 8 + data, tensors sorted by name."""
    header, end = {}, 0
    for key in sorted(shapes):
        start, end = end, end + 2 * math.prod(shapes[key])
        header[key] = {"dtype": "F16", "shape": shapes[key], "data_offsets": [start, end]}
    length = len(json.dumps(header, separators=(",", ":")))
    return 8 + length + -length % 8 + end


def test_names_sizes_and_hashes_are_the_published_ones() -> None:
    assert {file.name: (file.size, file.sha256) for file in CATALOGUE} == PUBLISHED


def test_each_known_size_follows_from_a_key_table() -> None:
    assert {file.name for file in CATALOGUE if file.size} == {f"{name}.safetensors" for name in TABLES}


@pytest.mark.parametrize("name", TABLES)
def test_size_is_reproduced_to_the_byte(name: str) -> None:
    table, channels = TABLES[name]
    shapes = json.loads((FACTS / f"{table}.json").read_text())["tensors"]
    if channels:
        shapes[CONV_IN] = [320, channels, 3, 3]
    assert safetensors_size(shapes) == PUBLISHED[f"{name}.safetensors"][0]


def test_size_formula_is_what_safetensors_writes(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    shapes = {"b": [3, 4], "a": [5], "c.d": [2, 1, 7]}
    save_file({key: torch.zeros(shape, dtype=torch.float16) for key, shape in shapes.items()}, tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").stat().st_size == safetensors_size(shapes)


def test_each_role_is_looked_up() -> None:
    for file in CATALOGUE:
        for role in file.roles:
            assert lookup(file.family, role) is file


def test_decoders_differ_between_families() -> None:
    assert lookup(Family.SD15, Role.DECODER).name == "layer_sd15_vae_transparent_decoder.safetensors"
    assert lookup(Family.SDXL, Role.DECODER).name == "vae_transparent_decoder.safetensors"
    assert lookup(Family.FLUX, Role.DECODER) is lookup(Family.FLUX, Role.ENCODER)


@pytest.mark.parametrize(
    ("family", "role", "words"),
    [
        (Family.SD15, Role.TRANSPARENT_CONV, ["'transparent image (conv)'", "only for SDXL", "'transparent image (attention)' instead"]),
        (Family.SDXL, Role.JOINT, ["only for SD1.5", "SDXL has 'foreground -> blended'"]),
        (Family.SD15, Role.FOREGROUND_TO_BLENDED, ["only for SDXL", "SD1.5 has 'foreground -> background + blended' instead"]),
        (Family.FLUX, Role.JOINT, ["no released Flux weights", "only for SD1.5: use a model of that family."]),
    ],
)
def test_missing_role_says_who_has_it(family: Family, role: Role, words: list[str]) -> None:
    with pytest.raises(DiaphaneError) as caught:
        lookup(family, role)
    assert all(word in str(caught.value) for word in words), caught.value


def test_url_and_title(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    joint, vae = lookup(Family.SD15, Role.JOINT), lookup(Family.FLUX, Role.DECODER)
    path = "LayerDiffusion/layerdiffusion-v1/resolve/e337e9d7a0f2a6fee6c3580374327380f88d065b/layer_sd15_joint.safetensors"
    assert joint.url == f"https://huggingface.co/{path}"
    assert joint.title == "SD1.5 joint layers"
    assert lookup(Family.SDXL, Role.DECODER).title == "SDXL transparency decoder"
    assert vae.title == "Flux transparency decoder and offset encoder"
    assert vae.url == "https://huggingface.co/RedAIGC/Flux-version-LayerDiffuse/resolve/main/TransparentVAE.pth"
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    assert joint.url == f"https://mirror.example/{path}"


def test_enums_read_as_text() -> None:
    assert f"{Family.SD15}" == str(Family.SD15) == "SD1.5"
    assert f"{Role.JOINT}" == "joint layers"


@pytest.mark.parametrize("name", ["../x.safetensors", "a/b.safetensors", "a\\b.pth", ".hidden", "", "c:x", "a b"])
def test_names_cannot_leave_the_folder(name: str) -> None:
    with pytest.raises(ValueError, match="not a plain file name"):
        WeightFile(name, Family.SDXL, frozenset({Role.JOINT}), "a/b", "main", None, "0" * 64, "none")
