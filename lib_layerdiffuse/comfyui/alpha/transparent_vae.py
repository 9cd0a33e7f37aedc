"""A VAE whose pictures have alpha, for every node that takes a VAE."""

from __future__ import annotations

import copy
from typing import Any

from comfy.sd import VAE
from torch import Tensor

from ...errors import DiaphaneError
from ...nets.offset_encoder import OFFSET_SCALE, OffsetEncoder
from ...nets.transparent_decoder import TransparentDecoder
from ...pixels.straight import check_picture, with_alpha
from ..layers import LATENT_SCALE
from .codec import decode_rgba, encode_rgba
from .latents import check_latent_for
from .managed_network import ManagedNetwork

# Where a Transparent VAE differs from the ordinary one inside.
NOT_OPAQUE = {"output_channels", "_opaque", "transparency_decoder", "offset_encoder", "passes", "offset_scale"}


class TransparentVAE(VAE):
    """An ordinary VAE with transparency: decodes to [B, H, W, 4], encodes [B, H, W, 3 or 4] (RGB counts as opaque), straight alpha.

    Shapes, dtypes and devices are those of ComfyUI's VAE. It shares the wrapped VAE's model, so that nothing is loaded twice, and has all
    of its other attributes and methods. The arguments are ComfyUI's own; those for videos mean nothing here, and what newer versions add
    is accepted.
    """

    def __init__(
        self,
        vae: VAE,
        decoder: ManagedNetwork[TransparentDecoder],
        encoder: ManagedNetwork[OffsetEncoder],
        *,
        passes: int = 8,
        offset_scale: float = OFFSET_SCALE,
    ):
        # Not VAE.__init__: it would build another model.
        vars(self).update(vars(vae))
        self.output_channels = 4
        self._opaque = vae
        self.transparency_decoder = decoder
        self.offset_encoder = encoder
        self.passes = passes
        self.offset_scale = offset_scale

    @property
    def opaque(self) -> VAE:
        """The ordinary VAE, with what was set on this one since: nodes copy a VAE and give the copy another patcher, model and device."""
        ours = {name: value for name, value in vars(self).items() if name not in NOT_OPAQUE}
        known = vars(self._opaque)
        if any(name not in known or value is not known[name] for name, value in ours.items()):
            # Kept, because loaded networks are found by the VAE that they were loaded for.
            self._opaque = copy.copy(self._opaque)
            vars(self._opaque).update(ours)
        return self._opaque

    def decode(self, samples_in: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        latent = self._picture_latent(samples_in)
        return self._with_alpha(latent, self.opaque.decode(latent, *args, **kwargs), tile=0)

    def decode_tiled(self, samples: Tensor, tile_x: int | None = None, tile_y: int | None = None, *args: Any, **kwargs: Any) -> Tensor:
        latent = self._picture_latent(samples)
        pixels = self.opaque.decode_tiled(latent, tile_x, tile_y, *args, **kwargs)
        return self._with_alpha(latent, pixels, tile=_smaller(tile_x, tile_y, 64) * LATENT_SCALE)

    def decode_tiled_(self, samples: Tensor, tile_x: int = 64, tile_y: int = 64, overlap: int = 16) -> Tensor:
        """[B, C, h, w] -> [B, 4, H, W]; some nodes call this instead of `decode_tiled`."""
        latent = self._picture_latent(samples)
        pixels = self.opaque.decode_tiled_(latent, tile_x, tile_y, overlap).movedim(1, -1)  # BCHW -> BHWC
        return self._with_alpha(latent, pixels, tile=min(tile_x, tile_y) * LATENT_SCALE).movedim(-1, 1)

    def encode(self, pixel_samples: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self._encode(pixel_samples, tile=0)

    def encode_tiled(
        self, pixel_samples: Tensor, tile_x: int | None = None, tile_y: int | None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        return self._encode(pixel_samples, tile=_smaller(tile_x, tile_y, 512))

    def encode_tiled_(self, pixel_samples: Tensor, tile_x: int = 512, tile_y: int = 512, overlap: int = 64) -> Tensor:
        """[B, 3 or 4, H, W] -> [B, C, h, w]; some nodes call this instead of `encode_tiled`."""
        return self._encode(pixel_samples.movedim(1, -1), tile=min(tile_x, tile_y))  # BCHW -> BHWC

    def vae_encode_crop_pixels(self, pixels: Tensor) -> Tensor:
        """The middle of the pictures, in whole latent cells, with their alpha."""
        height, width = pixels.shape[1:3]
        if min(height, width) < LATENT_SCALE:
            raise DiaphaneError(
                f"A VAE encodes pictures of at least {LATENT_SCALE} pixels a side, got {width}x{height}. "
                "Use Transparent VAE Encode, which pads."
            )
        for dim in (1, 2):
            size = pixels.shape[dim] // LATENT_SCALE * LATENT_SCALE
            pixels = pixels.narrow(dim, pixels.shape[dim] % LATENT_SCALE // 2, size)
        return pixels

    def _picture_latent(self, latent: Tensor) -> Tensor:
        """[B, C, h, w], checked, without the axis of frames that some nodes add: ComfyUI's VAEs for pictures take the first one, too."""
        return check_latent_for(self, latent[:, :, 0] if latent.ndim == 5 else latent)

    def _with_alpha(self, latent: Tensor, pixels: Tensor, tile: int) -> Tensor:
        check_picture(pixels)
        self.transparency_decoder = self.transparency_decoder.beside(self.patcher)
        return decode_rgba(self.transparency_decoder, pixels, latent, passes=self.passes, tile=tile).to(pixels)

    def _encode(self, pixels: Tensor, tile: int) -> Tensor:
        rgba = with_alpha(self.vae_encode_crop_pixels(pixels))
        self.offset_encoder = self.offset_encoder.beside(self.patcher)
        return encode_rgba(self.opaque, self.offset_encoder, rgba, offset_scale=self.offset_scale, tile=tile)


def opaque_vae(vae: VAE) -> VAE:
    """The ordinary VAE inside a Transparent VAE; any other VAE as it is."""
    return vae.opaque if isinstance(vae, TransparentVAE) else vae


def _smaller(tile_x: int | None, tile_y: int | None, default: int) -> int:
    return min(tile_x or default, tile_y or default)
