"""What newer ComfyUIs than the one at hand pass to this pack and take from it, compared by the names of the parameters.

host_newer.json lists what the pack uses of ComfyUI: the signature in 0.30.0, the newest one that could be read, and what changed.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import ast
import copy
import importlib
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from comfy.sd import VAE
from torch import Tensor

from dev.comfyui import ROOT
from dev.stand_ins.seeded import seeded_weights
from dev.stand_ins.shapes import offset_encoder_shapes
from dev.stand_ins.vae import build_vae
from lib_layerdiffuse.comfyui.alpha.codec import decode_rgba, encode_rgba
from lib_layerdiffuse.comfyui.alpha.managed_network import ManagedNetwork
from lib_layerdiffuse.comfyui.alpha.transparent_vae import TransparentVAE
from lib_layerdiffuse.nets.offset_encoder import OffsetEncoder
from lib_layerdiffuse.nets.transparent_decoder import TransparentDecoder
from tests.host.networks import _inference, decoder

__all__ = ["_inference", "decoder"]

ENTRIES: dict[str, dict[str, str]] = {
    entry["name"]: entry for entry in json.loads(Path(__file__).with_name("host_newer.json").read_text(encoding="utf-8"))["entries"]
}
HOSTS = ("0.30.0", "newer")
METHODS = re.compile(r"comfy\.(?:sd\.VAE|model_patcher\.ModelPatcher)\.(?!__)(\w+)")
# How the pack names what has these methods.
RECEIVERS = {".VAE.": ("vae", "opaque"), ".ModelPatcher.": ("model", "patcher", "patched", "result")}


def parameters(written: str) -> list[inspect.Parameter] | None:
    """The parameters of a signature as the list writes it; None if it is not one. Defaults do not count."""
    found = re.match(r"\((?P<inside>.*?)\)(?: @ .*|)$", written)
    if found is None:
        return None
    try:
        function = ast.parse(f"def f({found['inside']}): ...").body[0]
    except SyntaxError:
        return None
    assert isinstance(function, ast.FunctionDef)
    scope: dict[str, Any] = {}
    for default in [*function.args.defaults, *filter(None, function.args.kw_defaults)]:
        default.__class__ = ast.Constant
        vars(default).update(value=None, kind=None)
    for argument in ast.walk(function):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    exec(compile(ast.fix_missing_locations(ast.Module([function], [])), "<signature>", "exec"), scope)  # noqa: S102 (this repository's list)
    return list(inspect.signature(scope["f"]).parameters.values())


@pytest.fixture(scope="module")
def encoder() -> ManagedNetwork[OffsetEncoder]:
    return ManagedNetwork(OffsetEncoder, seeded_weights(offset_encoder_shapes(4)))


@pytest.fixture
def vae() -> VAE:
    return build_vae("SDXL", 0)


@pytest.fixture
def transparent(vae: VAE, decoder: ManagedNetwork[TransparentDecoder], encoder: ManagedNetwork[OffsetEncoder]) -> TransparentVAE:
    return TransparentVAE(vae, decoder, encoder, passes=1)


def picture(height: int = 64, width: int = 128, channels: int = 4) -> Tensor:
    return torch.rand(1, height, width, channels, generator=torch.Generator().manual_seed(0))


def latent(seed: int = 1) -> Tensor:
    return torch.randn(1, 4, 8, 16, generator=torch.Generator().manual_seed(seed))


# What ComfyUI calls


OVERRIDDEN = sorted(name for name in vars(TransparentVAE) if f"comfy.sd.VAE.{name}" in ENTRIES and name != "__init__")


def test_every_way_in_and_out_is_overridden() -> None:
    assert set(OVERRIDDEN) == {
        *("decode", "decode_tiled", "decode_tiled_", "encode", "encode_tiled", "encode_tiled_", "vae_encode_crop_pixels")
    }


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", OVERRIDDEN)
def test_overridden_methods_take_what_the_host_passes(name: str, host: str) -> None:
    asked = parameters(ENTRIES[f"comfy.sd.VAE.{name}"][host])
    assert asked is not None
    ours = inspect.signature(getattr(TransparentVAE, name))
    ours.bind(*asked)
    ours.bind(None, **{parameter.name: None for parameter in asked[1:]})
    # By position they have to mean the same.
    fixed = [parameter.name for parameter in ours.parameters.values() if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    assert fixed == [parameter.name for parameter in asked][: len(fixed)]


def test_whatever_newer_hosts_add_is_taken(transparent: TransparentVAE) -> None:
    rgba = picture()
    expected = transparent.encode(rgba)
    assert torch.equal(transparent.encode(pixel_samples=rgba, not_video=True), expected)
    tiled: dict[str, Any] = {"tile_x": 64, "tile_y": 64, "overlap": 16}
    video = {"tile_t": 8, "overlap_t": 2, "not_video": None}
    assert torch.equal(transparent.encode_tiled(rgba, **tiled, **video), transparent.encode_tiled(rgba, **tiled))
    assert torch.equal(transparent.decode(samples_in=latent(), vae_options={}), transparent.decode(latent()))


def test_it_answers_every_name_of_a_vae(transparent: TransparentVAE, vae: VAE) -> None:
    listed = {found[1] for found in (re.match(r"comfy\.sd\.VAE\.(\w+)", name) for name in ENTRIES) if found}
    names = {name for name in listed if hasattr(vae, name)}  # others are a newer host's, or those of another kind of VAE
    assert {"get_sd", "spacial_compression_encode", "temporal_compression_decode", "memory_used_decode"} < names
    for name in sorted(names):
        assert hasattr(transparent, name), name
        if not callable(getattr(vae, name)) and name != "output_channels":
            assert getattr(transparent, name) is getattr(vae, name), name
    assert (transparent.output_channels, vae.output_channels) == (4, 3)
    assert (transparent.latent_channels, transparent.latent_dim, transparent.spacial_compression_encode()) == (4, 2, 8)
    assert transparent.get_sd().keys() == vae.get_sd().keys()
    transparent.throw_exception_if_invalid()


def test_cropping_keeps_alpha(transparent: TransparentVAE) -> None:
    rgba = picture(71, 130)
    assert torch.equal(transparent.vae_encode_crop_pixels(rgba), rgba[:, 3:67, 1:129])


def test_the_inner_tiled_methods_have_alpha_too(transparent: TransparentVAE) -> None:
    whole = transparent.decode_tiled(latent(), 64, 64, 16)
    assert torch.equal(transparent.decode_tiled_(latent(), overlap=16), whole.movedim(-1, 1))
    rgba = picture()
    assert torch.equal(transparent.encode_tiled_(rgba.movedim(-1, 1)), transparent.encode_tiled(rgba))


def test_latents_with_an_axis_of_frames_keep_their_alpha(transparent: TransparentVAE) -> None:
    expected = transparent.decode(latent())
    assert expected[..., 3].std() > 0
    assert not torch.allclose(expected[..., 3], transparent.decode(latent(2))[..., 3])
    assert torch.equal(transparent.decode(latent()[:, :, None]), expected)
    assert torch.equal(transparent.decode_tiled(latent()[:, :, None], 64, 64, 16), transparent.decode_tiled(latent(), 64, 64, 16))


# What nodes do with a VAE


def test_a_copy_uses_what_was_set_on_it(
    transparent: TransparentVAE, vae: VAE, decoder: ManagedNetwork[TransparentDecoder], encoder: ManagedNetwork[OffsetEncoder]
) -> None:
    other = build_vae("SDXL", 1)
    decoded, encoded = transparent.decode(latent()), transparent.encode(picture())
    moved = copy.copy(transparent)
    moved.patcher, moved.first_stage_model, moved.device = other.patcher, other.first_stage_model, torch.device("cpu", 0)
    used = moved.opaque
    assert (used.patcher, used.first_stage_model, used.device) == (other.patcher, other.first_stage_model, torch.device("cpu", 0))
    assert used.output_channels == 3 and moved.opaque is used

    assert torch.equal(moved.decode(latent()), decode_rgba(decoder, other.decode(latent()), latent(), passes=1))
    assert torch.equal(moved.encode(picture()), encode_rgba(other, encoder, picture()))
    tiled = decode_rgba(decoder, other.decode_tiled(latent(), 8, 8, 2), latent(), passes=1, tile=64)
    assert torch.equal(moved.decode_tiled(latent(), 8, 8, 2), tiled)
    assert torch.equal(moved.encode_tiled(picture(), 64, 64, 16), encode_rgba(other, encoder, picture(), tile=64))

    # Neither what it was copied from nor the VAE that was given is touched.
    assert transparent.opaque is vae and vae.device != torch.device("cpu", 0)
    assert torch.equal(transparent.decode(latent()), decoded) and torch.equal(transparent.encode(picture()), encoded)
    assert not torch.allclose(moved.decode(latent()), decoded)


def test_the_networks_follow_a_copy_to_its_card(transparent: TransparentVAE) -> None:
    moved = copy.copy(transparent)
    moved.patcher = moved.patcher.clone()
    moved.patcher.load_device = torch.device("cpu", 0)
    assert torch.equal(moved.decode(latent()), transparent.decode(latent()))
    assert torch.equal(moved.encode(picture()), transparent.encode(picture()))
    for network in (moved.transparency_decoder, moved.offset_encoder):
        assert network.device == network.patcher.load_device == torch.device("cpu", 0)
    assert transparent.transparency_decoder.device == transparent.offset_encoder.device == torch.device("cpu")


def test_select_vae_device(transparent: TransparentVAE) -> None:
    multigpu = pytest.importorskip("comfy_extras.nodes_multigpu", reason="optional: this ComfyUI has no Select VAE Device")
    selected = multigpu.SelectVAEDeviceNode.execute(transparent, "default").result[0]
    assert isinstance(selected, TransparentVAE) and selected.patcher is not transparent.patcher
    assert selected.opaque.patcher is selected.patcher
    assert torch.equal(selected.decode(latent()), transparent.decode(latent()))


# What the pack calls


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """(where, the name in host_newer.json, the call) of what the pack calls in ComfyUI; methods of VAEs and patchers go by their name."""
    methods = {found[1]: name for name in ENTRIES if (found := METHODS.fullmatch(name))}
    for path in sorted([*(ROOT / "lib_layerdiffuse").rglob("*.py"), *(ROOT / "nodes").glob("*.py")]):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names.update({alias.asname or alias.name.split(".")[0]: alias.name if alias.asname else "" for alias in node.names})
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            first, _, rest = ast.unparse(node.func).partition(".")
            full = ".".join(filter(None, (names.get(first) or first, rest))) if first in names else ""
            name = next((entry for entry in (full, f"{full}.__init__") if entry in ENTRIES), None)
            if name is None and isinstance(node.func, ast.Attribute) and node.keywords and not full:
                # Text has an `encode` of its own, a tensor a `clone`.
                receivers = next((RECEIVERS[owner] for owner in RECEIVERS if owner in methods.get(node.func.attr, "")), ())
                if ast.unparse(node.func.value).endswith(receivers):
                    name = methods[node.func.attr]
            if name is not None:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", name, node


def takes(asked: list[inspect.Parameter], call: ast.Call, bound: bool) -> bool:
    if any(isinstance(argument, ast.Starred) for argument in call.args) or any(keyword.arg is None for keyword in call.keywords):
        given = {keyword.arg for keyword in call.keywords if keyword.arg is not None}
        return any(p.kind is p.VAR_KEYWORD for p in asked) or given <= {p.name for p in asked}
    try:
        inspect.Signature(asked).bind(*[None] * (len(call.args) + bound), **{str(keyword.arg): None for keyword in call.keywords})
    except TypeError:
        return False
    return True


@pytest.mark.parametrize("host", HOSTS)
def test_the_host_takes_what_the_pack_passes(host: str) -> None:
    checked = set()
    for where, name, call in calls():
        asked = parameters(ENTRIES[name][host])
        if asked is not None:
            checked.add(name)
            bound = bool(asked) and asked[0].name in ("self", "cls")
            assert takes(asked, call, bound), f"{where} does not fit {name}{ENTRIES[name][host]}"
    assert {"comfy.model_management.load_models_gpu", "comfy.utils.tiled_scale", "comfy.sd.VAE.encode_tiled"} <= checked
    assert len(checked) >= 50, "the list was not read"


def test_the_list_is_true_of_this_host() -> None:
    """As far as this is 0.30.0: elsewhere the list says nothing about it."""
    if importlib.import_module("comfyui_version").__version__ != "0.30.0":
        pytest.skip("optional: the list describes ComfyUI 0.30.0")
    for name, entry in ENTRIES.items():
        if (found := METHODS.fullmatch(name)) and (asked := parameters(entry["0.30.0"])) is not None:
            owner: Any = VAE if ".VAE." in name else importlib.import_module("comfy.model_patcher").ModelPatcher
            actual = inspect.signature(getattr(owner, found[1])).parameters
            assert list(actual) == [parameter.name for parameter in asked], name
