"""Layers from transparent pictures, painted by a server."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dev import bundled
from dev.server import ComfyServer
from training.commands import dataset
from training.data.layer_folder import LayerFolder

pytestmark = pytest.mark.live


def test_a_layer_dataset(server: ComfyServer, tmp_path: Path) -> None:
    cut_outs, out = tmp_path / "cut-outs", tmp_path / "layers"
    cut_outs.mkdir()
    bundled.draw_cut_out(cut_outs / "ball.png", 96, 64)
    (cut_outs / "ball.txt").write_text("a red ball")
    arguments = ["--server", server.url, "--loader", "StandInCheckpoint", "--loader-inputs", json.dumps({"family": "SD1.5", "seed": 0})]
    arguments += ["--data", str(cut_outs), "--out", str(out), "--side", "64", "--steps", "2"]
    dataset.main(arguments)

    drawn = LayerFolder(out, 64).block(0, 8)
    assert drawn.foreground_captions == ["a red ball"] and drawn.blended_captions == ["a red ball, in its natural surroundings"]
    alpha = drawn.foreground[0, 3]
    assert 0.1 < alpha.mean() < 0.9
    background = drawn.background[0]
    assert background.std() > 0.01
    on_grey = drawn.foreground[0, :3] * alpha + 0.5 * (1 - alpha)
    inside = alpha > 0.99
    assert (background - on_grey)[:, inside].abs().mean() > 0.02, "the picture was not painted out"

    written = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    dataset.main(arguments)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == written, "what is there was made again"


def test_a_server_that_refuses(server: ComfyServer, tmp_path: Path) -> None:
    bundled.draw_cut_out(tmp_path / "ball.png", 64, 64)
    with pytest.raises(RuntimeError, match="ComfyUI refused: 400"):
        dataset.main(["--server", server.url, "--checkpoint", "not there", "--data", str(tmp_path), "--out", str(tmp_path), "--side", "64"])
    assert not list(tmp_path.glob("*.background.png"))
    assert np.asarray(Image.open(tmp_path / "ball.png")).shape[2] == 4
