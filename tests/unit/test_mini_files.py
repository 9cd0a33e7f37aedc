"""The mini family that is shipped: whole, small, and described."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lib_layerdiffuse.weights import mini

FOLDER = Path(__file__).resolve().parents[2] / "mini"
NAMES = (mini.MODEL, mini.TEXT_ENCODER, mini.AUTOENCODER, *mini.LAYER_WEIGHTS.values())


def test_all_of_it_fits_in_twenty_four_megabytes() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {"README.md", *(f"{name}.safetensors" for name in NAMES)}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 24_000_000


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_finite_half_precision_and_in_the_model_card(name: str) -> None:
    weights = load_file(FOLDER / f"{name}.safetensors")
    floats = {key: tensor for key, tensor in weights.items() if tensor.is_floating_point()}
    assert {tensor.dtype for tensor in floats.values()} == {torch.float16}
    assert all(tensor.isfinite().all() for tensor in floats.values())
    assert f"`{name}.safetensors`" in (FOLDER / "README.md").read_text(encoding="utf-8")
