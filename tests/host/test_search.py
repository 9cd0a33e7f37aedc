"""What artists type into the node search leads to the right nodes; tests/browser/test_search.py asks the real search."""

from __future__ import annotations

from typing import Any

import pytest

# What they type, and nodes that they mean by it.
MEANT = {
    "layerdiffuse": {"DiaphaneTransparent", "DiaphaneJoint", "DiaphaneBlend", "DiaphaneExtract", "DiaphaneVAEDecode"},
    "transparent": {"DiaphaneTransparent", "DiaphaneVAEDecode", "DiaphaneVAEEncode", "DiaphaneVAE", "DiaphanePreview"},
    "RGBA": {"DiaphaneVAEDecode", "DiaphaneVAEEncode", "DiaphaneVAE"},
    "alpha": {"DiaphaneVAEDecode", "DiaphaneVAEEncode", "DiaphanePreview"},
    "transparent background": {"DiaphaneTransparent"},
    "cut-out": {"DiaphaneTransparent", "DiaphaneVAEEncode"},
    "img2img": {"DiaphaneVAEEncode"},
    "checkerboard": {"DiaphanePreview"},
    "separate layers": {"DiaphaneSplitLayers", "DiaphaneExtract"},
    "defringe": {"DiaphaneBleed"},
    "trim": {"DiaphaneRepair"},
    "matting": {"DiaphaneRepair"},
    "hair": {"DiaphaneRepair"},
    "position": {"DiaphanePlaceLayer"},
    "move layer": {"DiaphanePlaceLayer"},
    "fit in box": {"DiaphanePlaceLayer"},
    "align": {"DiaphanePlaceLayer"},
    "anchor": {"DiaphanePlaceLayer"},
    "flip": {"DiaphanePlaceLayer"},
    "sprite": {"DiaphaneTransparent", "DiaphaneRepair", "DiaphaneSaveSheet", "DiaphaneLoadTransparent"},
    "atlas": {"DiaphaneSaveSheet"},
    **{word: {"DiaphaneSaveAnimation"} for word in ("gif", "apng", "webp", "webm", "animation")},
    **{word: {"DiaphaneDropShadow"} for word in ("shadow", "glow", "outline")},
    "cast shadow": {"DiaphaneShadow"},
    "open psd": {"DiaphaneLoadLayers"},
    "photoshop": {"DiaphaneLoadLayers", "DiaphaneSaveLayers"},
    "load png with alpha": {"DiaphaneLoadTransparent"},
    "folder": {"DiaphaneLoadTransparent"},
    "inpaint": {"DiaphaneEmptyTransparent"},
    "noise mask": {"DiaphaneEmptyTransparent"},
    "empty latent": {"DiaphaneEmptyLayers", "DiaphaneEmptyTransparent"},
    "retouch": {"DiaphaneVAEDecode"},
}


@pytest.fixture(scope="module")
def schemas(node_classes: dict[str, Any]) -> dict[str, Any]:
    return {node_id: node.GET_SCHEMA() for node_id, node in node_classes.items()}


def found_by(text: str, schemas: dict[str, Any]) -> set[str]:
    return {
        node_id
        for node_id, schema in schemas.items()
        if any(text.lower() in name.lower() for name in (schema.display_name, *(schema.search_aliases or ())))
    }


@pytest.mark.parametrize("text", MEANT)
def test_words_lead_to_nodes(text: str, schemas: dict[str, Any]) -> None:
    assert MEANT[text] <= found_by(text, schemas)


def test_old_names_lead_to_the_successors(schemas: dict[str, Any]) -> None:
    """A deprecated node is hidden from the search; what it tells artists to use goes by its name as well."""
    by_name = {schema.display_name: schema for schema in schemas.values()}
    old = [schema for schema in schemas.values() if schema.is_deprecated]
    assert old
    for schema in old:
        advice = schema.description.removeprefix("Deprecated: use ")
        successor = max((name for name in by_name if advice.startswith(name)), key=len)
        assert schema.display_name in by_name[successor].search_aliases, f"{schema.display_name} should lead to {successor}"


def test_no_alias_is_said_twice(schemas: dict[str, Any]) -> None:
    for node_id, schema in schemas.items():
        names = [alias.lower() for alias in schema.search_aliases or ()]
        assert len(set(names)) == len(names), node_id
