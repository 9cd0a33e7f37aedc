"""Mistakes that no error stops: the node says in one line what it sees and what mends it, and nothing where all is well."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.faults.reports import LONGEST
from tests.faults.right import Right, picture, right

__all__ = ["right"]

Inputs = dict[str, Any]
Say = Callable[..., list[str]]

JOINT = ("foreground", "background", "blended")


@pytest.fixture
def say(node_classes: dict[str, Any], right: Right) -> Say:
    """say(node id, **changes) -> what the node says about its right inputs with these changes."""

    def call(node_id: str, **changes: Any) -> list[str]:
        inputs = {**right.inputs(node_id), **changes}
        texts = node_classes[node_id].PREPARE_CLASS_CLONE(None).EXECUTE_NORMALIZED(**inputs).ui["text"]
        for text in texts:
            assert len(text) < LONGEST and "\n" not in text and text.endswith("."), text
        return texts

    return call


def cut_out(height: int = 64, width: int = 64) -> Tensor:
    """Opaque in the middle half, nothing around it."""
    image = picture(height, width)
    image[..., 3] = 0.0
    image[:, height // 4 : -height // 4, width // 4 : -width // 4, 3] = 1.0
    return image


# --- pictures without transparency -----------------------------------------------------------------------------------------------------

OPAQUE_HINT = ["Nothing in this picture is transparent", "right for a background", "rgba of Transparent VAE Decode", "mask of Load Image"]
PLAIN = {"scale": 1.0, "rotation": 0.0}
NO_HOLES = torch.zeros(1, 64, 64)  # what Load Image gives for a file without alpha
TRANSPARENT_HALF = torch.tensor([0.0, 1.0]).repeat(1, 64, 32)


@pytest.mark.parametrize(
    ("node_id", "more"), [("DiaphanePlaceLayer", PLAIN), ("DiaphaneVAEEncode", {"family": "SD1.5"}), ("DiaphanePreview", {})]
)
def test_a_picture_without_transparency(say: Say, node_id: str, more: Inputs) -> None:
    [said] = say(node_id, image=picture(channels=3), **more)
    assert [word for word in OPAQUE_HINT if word not in said] == [], said
    [said] = say(node_id, image=picture(channels=3), mask=NO_HOLES, **more)
    assert "file has no alpha" in said and "Load Image" not in said
    for image, mask in ((cut_out(), None), (picture(channels=3), TRANSPARENT_HALF)):
        assert "Nothing" not in "".join(say(node_id, image=image, mask=mask, **more))


@pytest.mark.parametrize("settings", [{"mode": "multiply"}, {"opacity": 0.5}])
def test_what_lets_the_layers_below_through_may_be_opaque(say: Say, settings: Inputs) -> None:
    assert say("DiaphanePlaceLayer", image=picture(channels=3), **PLAIN, **settings) == ["fox: x 0, y 0, 64x64 px."]


# --- layers --------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(node_classes: dict[str, Any], right: Right) -> Callable[..., Any]:
    def call(image: Tensor, **settings: Any) -> Any:
        inputs = {**right.inputs("DiaphanePlaceLayer"), **PLAIN, "image": image, "name": "", **settings}
        return node_classes["DiaphanePlaceLayer"].execute(**inputs).result[0]

    return call


BESIDE: dict[str, Inputs] = {
    "the whole frame": {"x": 64},
    "the whole frame, far up": {"y": -500},
    "the object alone": {"x": 50},
    "the object alone, scaled": {"x": -45, "scale": 0.5},
}


@pytest.mark.parametrize("where", BESIDE)
@pytest.mark.parametrize("node_id", ["DiaphaneComposite", "DiaphaneSaveLayers"])
def test_a_layer_off_the_canvas(say: Say, place: Callable[..., Any], node_id: str, where: str) -> None:
    background, lost = picture(channels=3), place(cut_out(), **BESIDE[where])
    layers = {"layer0": background, "layer1": lost, "layer2": place(cut_out(), name="star", **BESIDE[where]), "layer3": cut_out()}
    [*_, said] = say(node_id, layers=layers, **({"background": None} if node_id == "DiaphaneComposite" else {}))
    assert "Off the canvas of 64x64 and so not to be seen: Layer 2, star. Change x and y in Place Layer" in said


@pytest.mark.parametrize("settings", [{"x": 40}, {"x": -40, "y": -40}, {"x": 20, "scale": 0.5}])
def test_layers_on_the_canvas(say: Say, place: Callable[..., Any], settings: Inputs) -> None:
    layers = {"layer0": picture(channels=3), "layer1": place(cut_out(), **settings), "layer2": torch.zeros(1, 64, 64, 4)}
    assert say("DiaphaneComposite", layers=layers, background=None) == []
    assert len(say("DiaphaneSaveLayers", layers=layers)) == 1


def test_a_composition_speaks_of_its_own_layers(say: Say, place: Callable[..., Any], node_classes: dict[str, Any]) -> None:
    """The one below has spoken of its own already."""
    lost = place(cut_out(), x=64)
    below = node_classes["DiaphaneComposite"].execute(background=picture(channels=3), layers={"layer0": lost}).result[1]
    assert say("DiaphaneComposite", background=below, layers={"layer0": cut_out()}) == []
    [said] = say("DiaphaneComposite", background=below, layers={"layer0": lost})
    assert "to be seen: Layer 3." in said


def test_one_flat_picture_is_saved(say: Say, place: Callable[..., Any]) -> None:
    [said] = say("DiaphaneSaveLayers", layers={"layer0": picture(channels=3)})
    assert said.startswith("1 layer saved: ") and "connect layers of Composite Layers" in said
    for count, layers in ((1, {"layer0": place(cut_out())}), (2, {"layer0": picture(channels=3), "layer1": cut_out()})):
        [said] = say("DiaphaneSaveLayers", layers=layers)
        assert said.startswith(f"{count} layer{'s' * (count > 1)} saved: faults/right") and "flat" not in said


# --- decoded pictures ------------------------------------------------------------------------------------------------------------------

OPAQUE, GLASS, NOTHING = (torch.full((1, 8, 8, 4), alpha) for alpha in (1.0, 0.5, 0.0))
ODD_DECODED = {
    "opaque": (OPAQUE, ["The picture is 100% opaque", "plain background", "weight", "conv"]),
    "transparent": (NOTHING, ["100% transparent", "negative prompt", "weight"]),
    "translucent": (GLASS, ["100% translucent", "patch the model by LayerDiffuse Transparent", "the VAE of the model"]),
    "two of three": (torch.cat((cut_out(8, 8), OPAQUE, OPAQUE)), ["2 of 3 pictures: 100% opaque", "LayerDiffuse Joint", "Empty Layer"]),
}


@pytest.mark.parametrize("kind", ODD_DECODED)
def test_odd_alpha(pack: ModuleType, kind: str) -> None:
    on_odd_alpha = importlib.import_module(f"{pack.__name__}.nodes.hints").on_odd_alpha
    rgba, words = ODD_DECODED[kind]
    [said] = on_odd_alpha(rgba, None)
    assert [word for word in words if word not in said] == [] and "family" not in said, said
    assert [said.replace("helps: ", "helps: set family; ")] == on_odd_alpha(rgba, "set family")
    nearly = rgba.clone()
    nearly[:, :, :2, 3], nearly[:, :, 2:4, 3] = 1.0, 0.0
    assert on_odd_alpha(nearly, "set family") == []


def test_each_kind_of_odd_alpha_is_one_line(pack: ModuleType) -> None:
    on_odd_alpha = importlib.import_module(f"{pack.__name__}.nodes.hints").on_odd_alpha
    assert len(on_odd_alpha(torch.cat((OPAQUE, GLASS, GLASS, OPAQUE)), None)) == 2


SMALL = {"samples": torch.zeros(1, 4, 64, 96)}  # 768x512
LARGE = {"samples": torch.zeros(1, 4, 96, 96)}


def test_a_guessed_family_is_said_where_something_is_odd(say: Say, vae: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("diaphane_under_test.lib_layerdiffuse.comfyui.alpha.alpha_vae")
    alpha = cut_out(8, 8)
    monkeypatch.setattr(module.AlphaVAE, "decode", lambda *_, **__: module.Decoded(alpha, [0], None))
    [said] = say("DiaphaneVAEDecode", samples=SMALL)
    assert "768x512 is small for SDXL" in said and "set family to SD1.5" in said
    assert say("DiaphaneVAEDecode", samples=LARGE) == []
    for settled in ({"family": "SD1.5"}, {"samples": {**SMALL, "layers": ("foreground",)}}, {"vae": vae("Flux")}):
        assert say("DiaphaneVAEDecode", **{"samples": SMALL, **settled}) == []
    alpha = GLASS
    for changes, words in (({}, "SD1.5 if the model is one (auto took SDXL)"), ({"family": "SDXL"}, "family to the model's own")):
        [said] = say("DiaphaneVAEDecode", samples=LARGE, **changes)
        assert words in said
    for settled in ({"samples": {**LARGE, "layers": ("foreground",)}}, {"vae": vae("Flux")}):
        [said] = say("DiaphaneVAEDecode", **{"samples": LARGE, **settled})
        assert "family" not in said


def test_encoding_says_so_too(say: Say, vae: Callable[[str], Any]) -> None:
    [said] = say("DiaphaneVAEEncode", image=cut_out())
    assert "64x64 is small for SDXL" in said and "set family to SD1.5" in said
    for settled in ({"family": "SD1.5"}, {"family": "SDXL"}, {"vae": vae("Flux")}, {"image": cut_out(64, 8192)}):
        assert say("DiaphaneVAEEncode", **{"image": cut_out(), **settled}) == []


# --- shares of a list and of a batch ---------------------------------------------------------------------------------------------------


def test_shares_of_a_batch_are_one_line_those_of_a_list_one_each(node_classes: dict[str, Any], right: Right) -> None:
    """As the host runs a node for a list: once for each item, its texts one after another."""
    from execution import get_output_data

    node = node_classes["DiaphanePreview"]
    inputs = {key: [value] for key, value in right.inputs("DiaphanePreview").items()}
    for images, expected in (
        ([OPAQUE, GLASS, NOTHING], ["100% opaque", "100% translucent", "100% transparent"]),
        ([torch.cat((OPAQUE, NOTHING))], ["50% opaque, 0% translucent, 50% transparent."]),
    ):
        run = get_output_data("prompt", "1", node.PREPARE_CLASS_CLONE(None), {**inputs, "image": images})
        texts = asyncio.run(run)[1]["text"]
        assert len(texts) == len(expected) and all(share in text for share, text in zip(expected, texts, strict=True)), texts
