"""How the training of latent transparency starts, and what its objective counts."""

from __future__ import annotations

import torch

from training.data.sprites import draw_any, paint
from training.mini import OFFSET_WIDTHS
from training.stages.transparency import TransparencySettings, bleed, new_encoder, raw_offset

RELEASED_WIDTHS = (4, 32, 32, 64, 64, 128, 128, 256, 256, 4)


def test_the_first_offset_depends_on_the_picture() -> None:
    """What is the same for all pictures cannot carry alpha, and is what an encoder without norms easily starts with."""
    rgba = paint(draw_any(16, torch.Generator().manual_seed(3)), 64)
    for widths in (OFFSET_WIDTHS, RELEASED_WIDTHS):
        torch.manual_seed(0)
        with torch.no_grad():
            offset = raw_offset(new_encoder(widths), rgba[:, 3:], bleed(rgba))
        everywhere = offset.mean(dim=(0, 2, 3), keepdim=True)
        assert (offset - everywhere).std() > everywhere.abs().max(), widths
        assert 0.1 < offset.std() < 2, widths


def test_the_identity_loss_waits_for_the_decoder() -> None:
    settings = TransparencySettings(identity_rises=(0.1, 0.3))
    assert [round(settings.identity_ramp(progress), 6) for progress in (0.0, 0.1, 0.2, 0.3, 1.0)] == [0.0, 0.0, 0.5, 1.0, 1.0]
