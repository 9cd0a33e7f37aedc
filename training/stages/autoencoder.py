"""The small autoencoder of the mini family. (Real families have their own: in every other stage it is frozen.)"""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.latents import SD15_SCALE
from ..data.procedural import crop, layers, over, transparent_pictures
from ..data.scenes import draw_scenes, paint_scenes
from ..data.sprites import GREY
from ..loop import Draws, Objective
from ..losses import picture_loss
from ..models.autoencoder import Autoencoder

CROPS_UNTIL = 0.75  # share of the run that sees crops of half the side


class AutoencoderObjective(Objective):
    """Reconstruction, and a divergence with enough weight that the part of the latent that the picture does not need stays near the prior:
    latent transparency stores alpha there later."""

    def __init__(self, autoencoder: Autoencoder, side: int, divergence: float):
        super().__init__()
        self.autoencoder = autoencoder
        self.side = side
        self.divergence = divergence

    def forward(self, draws: Draws, player: str = "") -> dict[str, Tensor]:
        if draws.progress < CROPS_UNTIL:
            picture = crop(pictures(draws, self.side), self.side // 2, draws.uniform(draws.batch, 2)[draws.rows])
        else:  # as many pixels as before
            draws = draws.smaller(4)
            picture = pictures(draws, self.side)
        noise = draws.normal(draws.batch, 4, picture.shape[2] // 8, picture.shape[3] // 8)[draws.rows]
        picture = picture.to(next(self.parameters()).device) * 2 - 1
        mean, std = self.autoencoder.posterior(picture)
        decoded = self.autoencoder.decode(mean + std * noise.to(mean)).float()
        nats = 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).sum(dim=(1, 2, 3)).mean()
        reconstruction = picture_loss(decoded, picture)
        total = reconstruction + self.divergence * nats / picture[0].numel()
        error = (decoded.clamp(-1, 1) - picture).square().mean() / 4
        return {
            "total": total,
            "reconstruction": reconstruction,
            "psnr": -10 * error.log10(),
            "nats_per_cell": nats / mean[0].numel(),
            "std": std.mean(),
        }


def pictures(draws: Draws, side: int) -> Tensor:
    """Pictures of what the mini models are for: sprites on mid-grey, backgrounds, and both together, [B, 3, side, side] in [0, 1]."""
    choice, mine = draws.uniform(draws.batch), torch.zeros(draws.batch, dtype=torch.bool)
    mine[draws.rows] = True
    cut_out, plain, both = (mine & kind for kind in (choice < 0.4, (choice >= 0.4) & (choice < 0.6), choice >= 0.6))
    result = torch.empty(draws.batch, 3, side, side)
    result[cut_out] = over(transparent_pictures(draws.batch, side, draws.generator, cut_out), GREY)
    result[plain] = paint_scenes(draw_scenes(draws.batch, draws.generator).rows(plain), side)
    result[both] = layers(draws.batch, side, draws.generator, both).blended
    return result[mine]


@torch.no_grad()
def standardise(autoencoder: Autoencoder, side: int, count: int, seed: int) -> None:
    """Scale the latents to mean 0 and the std that SD1.5's latent format assumes."""
    draws = Draws(0, 1, count, slice(None), torch.Generator().manual_seed(seed))
    latents = torch.cat([autoencoder.posterior(part * 2 - 1)[0] for part in pictures(draws, side).split(16)])
    autoencoder.standardise(latents.mean(dim=(0, 2, 3)), 1 / (SD15_SCALE * latents.std(dim=(0, 2, 3))))
