"""`make demo` ends with a transparent PNG, and finds out what a checkpoint is before it loads it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from dev import demo
from dev import host as hosts

pytestmark = pytest.mark.live

KEYS = {
    "sdxl": ["conditioner.embedders.0.transformer.x", "conditioner.embedders.1.model.x", "model.diffusion_model.input_blocks.0.0.weight"],
    "sd15": ["cond_stage_model.transformer.x", "model.diffusion_model.input_blocks.0.0.weight"],
    "flux": ["model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "text_encoders.clip_l.x"],
}


def test_writes_a_picture_with_alpha_and_says_that_it_is_a_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"RESULTS": tmp_path, "SIDE": 128, "STEPS": 2}.items():
        monkeypatch.setattr(demo, name, value)
    monkeypatch.setenv("PROMPT", "a paper boat")
    monkeypatch.delenv("MODEL", raising=False)
    assert demo.main() == 0
    said = capsys.readouterr().out
    assert "stand-in weights" in said and "MODEL=" in said and str(tmp_path / "transparent.png") in said
    with Image.open(tmp_path / "transparent.png") as picture, Image.open(tmp_path / "on_checkerboard.png") as preview:
        assert (picture.mode, picture.size) == ("RGBA", (128, 128))
        assert "a paper boat" in picture.info["prompt"]
        assert (preview.mode, preview.size) == ("RGB", (128, 128))


@pytest.mark.parametrize("family", KEYS)
def test_recognises_a_checkpoint_by_its_tensors(tmp_path: Path, family: str) -> None:
    save_file({key: torch.zeros(1) for key in KEYS[family]}, tmp_path / "model.safetensors")
    assert demo.family_of(tmp_path / "model.safetensors") == family


def test_says_which_checkpoints_cannot_be_used(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"model.something": torch.zeros(1)}, other)
    with pytest.raises(demo.DemoError, match="no SDXL, SD1.5 or FLUX.1 checkpoint"):
        demo.family_of(other)
    other.write_bytes(b"<html>")
    with pytest.raises(demo.DemoError, match="Download it again"):
        demo.family_of(other)


def test_names_the_folder_where_a_checkpoint_is_looked_for() -> None:
    host = hosts.locate()
    with pytest.raises(demo.DemoError, match="no_such_model.* is no file") as caught:
        demo.find_checkpoint("no_such_model", host)
    assert str(host.tree / "models" / "checkpoints") in str(caught.value)
