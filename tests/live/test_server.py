"""The server starts with the pack in it, answers, runs prompts and says what is wrong with bad ones."""

from __future__ import annotations

from typing import Any

import pytest

from dev import comfyui
from dev.server import ComfyServer, WorkflowError

pytestmark = pytest.mark.live

EMPTY_IMAGE = {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 8, "batch_size": 2, "color": 255}}


def test_offers_nodes_of_the_host_and_of_the_pack(server: ComfyServer) -> None:
    info = server.object_info()
    assert "KSampler" in info
    assert any(name.startswith("Diaphane") for name in info), server.log_tail(60)


def test_is_the_comfyui_that_was_asked_for(server: ComfyServer) -> None:
    version = server.get("/system_stats")["system"]["comfyui_version"]
    assert version == comfyui.locate().version


def test_no_pack_failed_to_import(server: ComfyServer) -> None:
    assert "IMPORT FAILED" not in server.log.read_text(encoding="utf-8", errors="replace")


def test_runs_a_prompt_and_finds_its_images(server: ComfyServer) -> None:
    prompt: dict[str, Any] = {
        "1": EMPTY_IMAGE,
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "folder/image"}},
    }
    images = server.outputs(server.queue(prompt))
    assert [image.parent.name for image in images] == ["folder", "folder"]
    assert all(image.read_bytes().startswith(b"\x89PNG") for image in images)
    assert server.queue(prompt).cached == ["1", "2"]


def test_refused_prompt_names_node_and_reason(server: ComfyServer) -> None:
    prompt = {"1": {**EMPTY_IMAGE, "inputs": {"width": "wide"}}, "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
    with pytest.raises(WorkflowError, match="width") as caught:
        server.queue(prompt)
    assert (caught.value.node_id, caught.value.node_type) == ("1", "EmptyImage")


def test_failed_prompt_names_node_and_reason(server: ComfyServer) -> None:
    prompt = {
        "1": EMPTY_IMAGE,
        "2": {"class_type": "ImageToMask", "inputs": {"image": ["1", 0], "channel": "alpha"}},
        "3": {"class_type": "MaskPreview", "inputs": {"mask": ["2", 0]}},
    }
    with pytest.raises(WorkflowError, match="out of bounds") as caught:
        server.queue(prompt)
    assert (caught.value.node_id, caught.value.node_type) == ("2", "ImageToMask")
    assert "IndexError" in caught.value.traceback or "IndexError" in caught.value.exception_message
