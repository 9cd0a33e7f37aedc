"""The estimate over orientations, and networks of other widths."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lib_layerdiffuse.nets.eight_passes import ORIENTATIONS, PASSES, estimate_rgba, turn, turn_back
from lib_layerdiffuse.nets.transparent_decoder import DecoderLayout, TransparentDecoder


def colour_of_latent(pixel: Tensor, latent: Tensor) -> Tensor:
    """A decoder that turns with its input: alpha from the latent, colour from the pixel."""
    return torch.cat((latent[:, :1].repeat_interleave(8, dim=2).repeat_interleave(8, dim=3), pixel), dim=1)


def test_all_orientations_are_different_and_come_back() -> None:
    x = torch.rand(2, 3, 4, 6)
    turned = [turn(x, *orientation) for orientation in ORIENTATIONS]
    assert len({tuple(t.flatten().tolist()) for t in turned}) == 8
    assert all(torch.equal(turn_back(t, *orientation), x) for t, orientation in zip(turned, ORIENTATIONS, strict=True))


@pytest.mark.parametrize("passes", PASSES)
def test_pixel_and_latent_turn_together(passes: int) -> None:
    pixel, latent = torch.rand(2, 3, 64, 128), torch.rand(2, 4, 8, 16)
    calls: list[None] = []
    estimate = estimate_rgba(colour_of_latent, pixel, latent, passes, lambda: calls.append(None))
    assert torch.allclose(estimate, colour_of_latent(pixel, latent), atol=1e-6)
    assert len(calls) == passes


@pytest.mark.parametrize(("passes", "expected"), [(8, 0.3), (4, 0.15), (2, 0.05), (1, 0.0)])
def test_which_value_is_the_middle_one(passes: int, expected: float) -> None:
    values = iter(range(8))

    def rising(pixel: Tensor, latent: Tensor) -> Tensor:
        return torch.full((1, 4, *pixel.shape[2:]), next(values) / 10)

    # Eight: the lower median, as published. Fewer: the mean of the two middle ones.
    assert estimate_rgba(rising, torch.zeros(1, 3, 8, 8), torch.zeros(1, 4, 1, 1), passes)[0, 0, 0, 0].item() == pytest.approx(expected)


def test_results_are_clipped_before_the_median() -> None:
    wild = iter([5.0, -5.0] * 4)

    def decoder(pixel: Tensor, latent: Tensor) -> Tensor:
        return torch.full((1, 4, *pixel.shape[2:]), next(wild))

    estimate = estimate_rgba(decoder, torch.zeros(1, 3, 8, 8), torch.zeros(1, 4, 1, 1), 2)
    assert torch.equal(estimate, torch.full((1, 4, 8, 8), 0.5))


def test_other_numbers_of_passes_are_refused() -> None:
    with pytest.raises(ValueError, match="passes must be one of"):
        estimate_rgba(colour_of_latent, torch.zeros(1, 3, 8, 8), torch.zeros(1, 4, 1, 1), 3)


@pytest.mark.parametrize("channels", [4, 16])
@pytest.mark.parametrize("widths", [(8, 8, 16, 16, 32), (16, 16, 16, 24, 32, 40, 40)])
def test_layout_is_read_from_the_weights(widths: tuple[int, ...], channels: int) -> None:
    attention = tuple(level >= len(widths) - 3 for level in range(len(widths)))
    layout = DecoderLayout(widths, attention, 2, 3, channels, 4)
    network = TransparentDecoder(layout)
    again = TransparentDecoder.from_state_dict(network.state_dict())
    assert again.layout == layout
    side = layout.multiple
    with torch.inference_mode():
        result = again(torch.rand(1, 3, side, 2 * side), torch.rand(1, channels, side // 8, side // 4))
    assert result.shape == (1, 4, side, 2 * side)


def test_weights_of_something_else_name_the_missing_key() -> None:
    with pytest.raises(KeyError, match="down_blocks.0.resnets.0.conv1.weight"):
        TransparentDecoder.from_state_dict({"conv_in.weight": torch.zeros(32, 3, 3, 3)})
