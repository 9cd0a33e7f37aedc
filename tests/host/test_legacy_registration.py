"""The deprecated nodes as the host sees them: the older pack's inputs, values and outputs, and what replaces them."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false
from __future__ import annotations

import asyncio
import importlib
from types import ModuleType
from typing import Any

import pytest

from tests.host.reference import core

Nodes = dict[str, Any]

WEIGHT = ("FLOAT", {"default": 1.0, "min": -1.0, "max": 3.0, "step": 0.05})
GIVEN = ("COMBO", {"options": ["SDXL, Foreground", "SDXL, Background"]})
SD_VERSION = ("COMBO", {"options": ["SD15", "SDXL"], "default": "SDXL"})
SUB_BATCH_SIZE = ("INT", {"default": 16, "min": 1, "max": 4096, "step": 1})
TRANSPARENT = ["SDXL, Attention Injection", "SDXL, Conv Injection", "SD15, Attention Injection, attn_sharing"]
JOINT = ["SD15, attn_sharing, Batch size (3N)"]
COND_JOINT = ["SD15, Foreground, attn_sharing, Batch size (2N)", "SD15, Background, attn_sharing, Batch size (2N)"]
SIGNATURES: dict[str, tuple[dict[str, tuple[str, dict[str, Any]]], dict[str, str], list[str]]] = {
    "LayeredDiffusionApply": (
        {"model": ("MODEL", {}), "config": ("COMBO", {"options": TRANSPARENT}), "weight": WEIGHT},
        {},
        ["MODEL"],
    ),
    "LayeredDiffusionJointApply": (
        {"model": ("MODEL", {}), "config": ("COMBO", {"options": JOINT})},
        {"fg_cond": "CONDITIONING", "bg_cond": "CONDITIONING", "blended_cond": "CONDITIONING"},
        ["MODEL"],
    ),
    "LayeredDiffusionCondApply": (
        {
            "model": ("MODEL", {}),
            "cond": ("CONDITIONING", {}),
            "uncond": ("CONDITIONING", {}),
            "latent": ("LATENT", {}),
            "config": GIVEN,
            "weight": WEIGHT,
        },
        {},
        ["MODEL", "CONDITIONING", "CONDITIONING"],
    ),
    "LayeredDiffusionCondJointApply": (
        {"model": ("MODEL", {}), "image": ("IMAGE", {}), "config": ("COMBO", {"options": COND_JOINT})},
        {"cond": "CONDITIONING", "blended_cond": "CONDITIONING"},
        ["MODEL"],
    ),
    "LayeredDiffusionDiffApply": (
        {
            "model": ("MODEL", {}),
            "cond": ("CONDITIONING", {}),
            "uncond": ("CONDITIONING", {}),
            "blended_latent": ("LATENT", {}),
            "latent": ("LATENT", {}),
            "config": GIVEN,
            "weight": WEIGHT,
        },
        {},
        ["MODEL", "CONDITIONING", "CONDITIONING"],
    ),
    "LayeredDiffusionDecode": (
        {"samples": ("LATENT", {}), "images": ("IMAGE", {}), "sd_version": SD_VERSION, "sub_batch_size": SUB_BATCH_SIZE},
        {},
        ["IMAGE", "MASK"],
    ),
    "LayeredDiffusionDecodeRGBA": (
        {"samples": ("LATENT", {}), "images": ("IMAGE", {}), "sd_version": SD_VERSION, "sub_batch_size": SUB_BATCH_SIZE},
        {},
        ["IMAGE"],
    ),
    "LayeredDiffusionDecodeSplit": (
        {
            "samples": ("LATENT", {}),
            "images": ("IMAGE", {}),
            "frames": ("INT", {"default": 2, "min": 2, "max": 3, "step": 1}),
            "sd_version": SD_VERSION,
            "sub_batch_size": SUB_BATCH_SIZE,
        },
        {},
        ["IMAGE", "IMAGE", "IMAGE"],
    ),
}


def test_inputs_and_outputs_are_those_of_the_older_pack(node_classes: Nodes) -> None:
    found = {node_id for node_id, node in node_classes.items() if node.GET_SCHEMA().is_deprecated}
    assert found == SIGNATURES.keys()
    for node_id, (required, optional, outputs) in SIGNATURES.items():
        info = node_classes[node_id].GET_NODE_INFO_V1()
        assert list(info["input"]["required"]) == list(required)
        for name, (kind, options) in required.items():
            got_kind, got = info["input"]["required"][name]
            assert (got_kind, {key: got[key] for key in options}) == (kind, options), f"{node_id}.{name}"
        assert {name: kind for name, (kind, _) in info["input"].get("optional", {}).items()} == optional
        assert info["output"] == outputs
        assert info["deprecated"]


def node_ids(pack: ModuleType) -> set[str]:
    async def collect() -> list[Any]:
        return await (await pack.comfy_entrypoint()).get_node_list()

    return {node.GET_SCHEMA().node_id for node in asyncio.run(collect())}


def test_ids_of_another_pack_are_left_to_it(pack: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    taken = {"LayeredDiffusionApply", "LayeredDiffusionDecode"}
    for node_id in taken:
        monkeypatch.setitem(core.NODE_CLASS_MAPPINGS, node_id, object)
    with caplog.at_level("INFO", logger="diaphane"):
        ids = node_ids(pack)
    assert ids & SIGNATURES.keys() == SIGNATURES.keys() - taken
    assert "LayeredDiffusionApply, LayeredDiffusionDecode" in caplog.text


def test_replacements_are_what_the_host_understands(pack: ModuleType, node_classes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an old id is missing, the host puts the new node in its place, its values in the right inputs."""
    manager_module = importlib.import_module("app.node_replace_manager")
    manager = manager_module.NodeReplaceManager()
    server = importlib.import_module("server")
    monkeypatch.setattr(server.PromptServer, "instance", type("Server", (), {"node_replace_manager": manager}), raising=False)
    extension = asyncio.run(pack.comfy_entrypoint())
    asyncio.run(extension.on_load())
    for replacement in (entry for entries in manager.as_dict().values() for entry in entries):
        old, new = (node_classes[replacement[key]] for key in ("old_node_id", "new_node_id"))
        old_inputs, new_inputs = ([item.id for item in node.GET_SCHEMA().inputs] for node in (old, new))
        assert {entry["new_id"] for entry in replacement["input_mapping"]} <= set(new_inputs)
        assert {entry["old_id"] for entry in replacement["input_mapping"] if "old_id" in entry} <= set(old_inputs)
        assert replacement["old_widget_ids"] == [name for name in old_inputs if name in replacement["old_widget_ids"]]
        monkeypatch.setitem(core.NODE_CLASS_MAPPINGS, replacement["new_node_id"], new)
    prompt = {
        "1": {"class_type": "LayeredDiffusionDecodeRGBA", "_meta": {"title": ""}, "inputs": {}},
        "2": {"class_type": "PreviewImage", "_meta": {"title": ""}, "inputs": {"images": ["1", 0]}},
    }
    prompt["1"]["inputs"] = {"samples": ["3", 0], "images": ["4", 0], "sd_version": "SDXL", "sub_batch_size": 16}
    manager.apply_replacements(prompt)
    assert prompt["1"]["class_type"] == "DiaphaneVAEDecode"
    assert prompt["1"]["inputs"] == {"samples": ["3", 0], "images": ["4", 0], "family": "SDXL", "passes": 8, "tile_size": 0}


def test_hosts_without_replacements_are_left_alone(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    registration = importlib.import_module(f"{pack.__name__}.lib_layerdiffuse.comfyui.registration")
    monkeypatch.delattr(registration.io, "NodeReplace", raising=False)
    asyncio.run(registration.register_replacements([{"new_node_id": "DiaphaneTransparent", "old_node_id": "LayeredDiffusionApply"}]))
