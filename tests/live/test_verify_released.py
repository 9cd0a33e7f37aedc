"""`make verify-released` runs every recipe; only with the released files does it judge anything."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from dev import comfyui, verify_released
from dev.server import ComfyServer
from lib_layerdiffuse.weights.catalogue import Family, Role, WeightFile

pytestmark = pytest.mark.live


def test_dry_run_reports_every_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(verify_released, "RESULTS", tmp_path)
    assert verify_released.main(["--dry-run"]) == 0
    said = capsys.readouterr().out
    assert re.findall(r"^(\S+), (\w+)$", said, re.MULTILINE) == [
        ("SDXL", "attention"),
        ("SDXL", "conv"),
        ("SD1.5", "attention"),
        ("Flux", "attention"),
    ]
    shares = re.findall(r"^  (painted|again) +(\d+)% opaque, (\d+)% translucent, (\d+)% transparent$", said, re.MULTILINE)
    assert [name for name, *_ in shares] == ["painted", "again"] * 4
    assert all(abs(sum(map(int, share)) - 100) <= 1 for _, *share in shares)
    assert (
        len(re.findall(r"^  \d+\.\d s with loading; most memory seen: \d\.\d GiB of RAM, \d\.\d GiB on the graphics card$", said, re.M))
        == 4
    )
    sheets = [Path(path) for path in re.findall(r"^  sheet +(.+)$", said, re.MULTILINE)]
    assert sheets == [tmp_path / f"{name}.png" for name in ("SDXL_attention", "SDXL_conv", "SD1.5_attention", "Flux_attention")]
    for path in sheets:
        with Image.open(path) as picture:
            assert (picture.mode, picture.size) == ("RGB", (128, 64))


def test_the_recipes_are_those_of_the_authors() -> None:
    settings = {
        "SDXL": (1024, 20, 5.0, "dpmpp_2m_sde", "karras"),
        "SD1.5": (512, 20, 7.0, "dpmpp_2m_sde", "karras"),
        "Flux": (1024, 50, 1.0, "euler", "simple"),
    }
    for family, expected in settings.items():
        workflow = verify_released.bundled.TRANSPARENT[family]
        prompt = verify_released.recipe(verify_released.bundled.prompt(workflow), "SDXL", "attention")
        verify_released.demo.prepare(prompt, Path("checkpoint.safetensors"), verify_released.TEXT)
        inputs = {entry["class_type"]: entry["inputs"] for entry in prompt.values()}
        [empty] = [entry["inputs"] for entry in prompt.values() if "width" in entry["inputs"]]
        assert inputs["KSampler"]["seed"] == 12345
        sampler = (inputs["KSampler"][name] for name in ("steps", "cfg", "sampler_name", "scheduler"))
        assert (empty["width"], *sampler) == expected and empty["height"] == empty["width"]
        texts = {entry["inputs"]["text"] for entry in prompt.values() if entry["class_type"] == "CLIPTextEncode"}
        assert texts == ({"an apple, high quality"} if family == "Flux" else {"an apple, high quality", "bad, ugly"})
        assert inputs["CheckpointLoaderSimple"]["ckpt_name"] == "checkpoint.safetensors"


def test_a_checkpoint_runs_in_a_server_that_knows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tmp_path / "my checkpoint.safetensors"
    save_file({"cond_stage_model.transformer.x": torch.zeros(1)}, checkpoint)
    fetched, verified = [], []

    def verify(server: ComfyServer, family: str, path: Path | None) -> None:
        choices = server.object_info()["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"]
        verified.append((family, path, "my checkpoint.safetensors" in json.dumps(choices)))

    monkeypatch.setattr(verify_released, "fetch", lambda family, roles, host: fetched.append((family, roles)))
    monkeypatch.setattr(verify_released, "verify", verify)
    assert verify_released.main([str(checkpoint)]) == 0
    assert verified == [("SD1.5", checkpoint, True)]
    assert fetched == [(Family.SD15, [Role.TRANSPARENT_ATTENTION])]


def test_another_file_is_not_taken_for_the_released_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "models" / "layer_model"
    folder.mkdir(parents=True)
    monkeypatch.setattr(verify_released.demo, "WEIGHTS", folder)
    released = b"released"
    for name in ("first.safetensors", "second.safetensors"):
        (folder / name).write_bytes(released)
    sha256 = hashlib.sha256(released).hexdigest()
    names = {Role.TRANSPARENT_CONV: "first.safetensors", Role.DECODER: "second.safetensors", Role.ENCODER: "second.safetensors"}
    files = {
        role: WeightFile(name, Family.SDXL, frozenset({role}), "owner/name", "main", None, sha256, "none") for role, name in names.items()
    }
    monkeypatch.setattr(verify_released, "lookup", lambda family, role: files[role])
    host = dataclasses.replace(comfyui.locate(), tree=tmp_path)
    verify_released.fetch(Family.SDXL, [Role.TRANSPARENT_CONV], host)
    (folder / "second.safetensors").write_bytes(b"another")
    with pytest.raises(verify_released.demo.DemoError, match="second.safetensors is not the released file"):
        verify_released.fetch(Family.SDXL, [Role.TRANSPARENT_CONV], host)


def test_a_checkpoint_has_to_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        verify_released.main([])
    assert "--dry-run" in capsys.readouterr().err
    assert verify_released.main(["no_such_checkpoint"]) == 1
    assert "no_such_checkpoint" in capsys.readouterr().err
