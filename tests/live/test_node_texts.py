"""What the server tells the frontend about the nodes: everything that an artist can point at explains itself."""

from __future__ import annotations

import pytest

from dev.server import ComfyServer

pytestmark = pytest.mark.live

NODES = {
    "DiaphaneTransparent",
    "DiaphaneJoint",
    "DiaphaneJointFromLayer",
    "DiaphaneBlend",
    "DiaphaneExtract",
    "DiaphaneLayerPrompts",
    "DiaphaneEmptyLayers",
    "DiaphaneVAEDecode",
    "DiaphaneVAEEncode",
    "DiaphaneVAE",
    "DiaphaneSplitLayers",
    "DiaphaneBleed",
    "DiaphanePreview",
    "DiaphanePlaceLayer",
    "DiaphaneComposite",
    "DiaphaneUpscale",
    "DiaphaneRepair",
    "DiaphaneSaveLayers",
    "DiaphaneSaveSheet",
    "DiaphaneSaveAnimation",
    "DiaphaneDropShadow",
    "DiaphaneShadow",
}


def test_every_node_explains_itself(server: ComfyServer) -> None:
    ours = {name: info for name, info in server.object_info().items() if name.startswith("Diaphane")}
    assert ours.keys() >= NODES
    silent = []
    for name, info in ours.items():
        for group in ("required", "optional"):
            inputs = info["input"].get(group, {})
            silent += [f"{name}.{key}" for key, spec in inputs.items() if not (len(spec) > 1 and spec[1].get("tooltip"))]
        tooltips = info.get("output_tooltips") or []
        silent += [f"{name} -> {output}" for output, tip in zip(info["output_name"], tooltips, strict=True) if not tip]
        silent += [f"{name}: {what}" for what in ("display_name", "description", "search_aliases") if not info.get(what)]
        assert info["category"].split("/")[0] == "layerdiffuse"
    assert silent == []


def test_aliases_lead_from_the_names_of_the_older_packs(server: ComfyServer) -> None:
    info = server.object_info()
    aliases = {alias for name in NODES for alias in info[name]["search_aliases"]}
    assert {"LayerDiffuse", "Layer Diffuse Apply", "Layer Diffuse Decode (RGBA)", "Layer Diffuse Decode (Split)"} <= aliases
