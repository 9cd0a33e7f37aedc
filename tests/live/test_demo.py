"""`make demo` ends with a transparent PNG, and finds out what a checkpoint is before it loads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from dev import comfyui, demo
from training.data.procedural import over
from training.judge import judge

pytestmark = pytest.mark.live

KEYS = {
    "SDXL": ["conditioner.embedders.0.transformer.x", "conditioner.embedders.1.model.x", "model.diffusion_model.input_blocks.0.0.weight"],
    "SD1.5": ["cond_stage_model.transformer.x", "model.diffusion_model.input_blocks.0.0.weight"],
    "Flux": ["model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "text_encoders.clip_l.x"],
}


def test_paints_what_the_prompt_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(demo, "RESULTS", tmp_path)
    monkeypatch.setenv("PROMPT", "a blue glass star")
    monkeypatch.delenv("MODEL", raising=False)
    assert demo.main() == 0
    said = capsys.readouterr().out
    assert "mini models" in said and "MODEL=" in said and str(tmp_path / "transparent_mini.png") in said
    with Image.open(tmp_path / "transparent_mini.png") as picture, Image.open(tmp_path / f"{demo.PICTURE} preview.png") as preview:
        assert (picture.mode, picture.size) == ("RGBA", (128, 128))
        assert "a blue glass star" in picture.info["prompt"]
        assert (preview.mode, preview.size) == ("RGB", (128, 128))
    [verdict] = judge(picture_of(tmp_path / "transparent_mini.png"))
    assert (verdict.shape, verdict.colour, verdict.material) == ("star", "blue", "glass")


def test_paints_layers_that_fit_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "RESULTS", tmp_path)
    for name in ("PROMPT", "MODEL"):
        monkeypatch.delenv(name, raising=False)
    assert demo.main() == 0
    layers = {name: picture_of(tmp_path / f"joint_mini_{name}.png") for name in ("foreground", "background", "blended")}
    composed = over(layers["foreground"], layers["background"])
    assert (composed - layers["blended"]).square().mean().sqrt() < 0.1
    assert (layers["background"] - layers["blended"]).square().mean().sqrt() > 0.1
    assert {path.name for path in tmp_path.glob("iterative_mini*")} >= {"iterative_mini.png", "iterative_mini_layers.psd"}


def picture_of(path: Path) -> torch.Tensor:
    """A picture file as [1, C, H, W] in [0, 1]."""
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture)).movedim(-1, 0)[None] / 255


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
    host = comfyui.locate()
    with pytest.raises(demo.DemoError, match="no_such_model.* is no file") as caught:
        demo.find_checkpoint("no_such_model", host)
    assert str(host.tree / "models" / "checkpoints") in str(caught.value)
