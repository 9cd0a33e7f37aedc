"""A VAE whose pictures have alpha, for every node that takes a VAE."""

from __future__ import annotations

from typing import Any

from comfy.sd import VAE
from torch import Tensor

from ..errors import DiaphaneError
from ..nets.offset_encoder import OffsetEncoder
from ..nets.transparent_decoder import TransparentDecoder
from ..pixels.straight import with_alpha
from .networks import ManagedNetwork
from .transparency import LATENT_SCALE, OFFSET_SCALE, decode_rgba, encode_rgba


class TransparentVAE(VAE):
    """An ordinary VAE with transparency: decodes to [B, H, W, 4], encodes [B, H, W, 3 or 4] (RGB counts as opaque), straight alpha.

    It shares the wrapped VAE's model, so that nothing is loaded twice, and answers whatever else is asked of a VAE.
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
        self.__dict__.update(vae.__dict__)
        self.opaque = vae
        self.transparency_decoder = decoder
        self.offset_encoder = encoder
        self.passes = passes
        self.offset_scale = offset_scale

    def decode(self, samples_in: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self._with_alpha(samples_in, self.opaque.decode(samples_in, *args, **kwargs), tile=0)

    def decode_tiled(self, samples: Tensor, tile_x: int | None = None, *args: Any, **kwargs: Any) -> Tensor:
        pixels = self.opaque.decode_tiled(samples, tile_x, *args, **kwargs)
        return self._with_alpha(samples, pixels, tile=(tile_x or 64) * LATENT_SCALE)

    def encode(self, pixel_samples: Tensor) -> Tensor:
        return self._encode(pixel_samples, tile=0)

    def encode_tiled(self, pixel_samples: Tensor, tile_x: int | None = None, *args: Any, **kwargs: Any) -> Tensor:
        return self._encode(pixel_samples, tile=tile_x or 512)

    def _with_alpha(self, latent: Tensor, pixels: Tensor, tile: int) -> Tensor:
        return decode_rgba(self.transparency_decoder, pixels, latent, passes=self.passes, tile=tile).to(pixels)

    def _encode(self, pixels: Tensor, tile: int) -> Tensor:
        rgba = with_alpha(_crop(pixels))
        return encode_rgba(self.opaque, self.offset_encoder, rgba, offset_scale=self.offset_scale, tile=tile)


def opaque_vae(vae: VAE) -> VAE:
    """The ordinary VAE inside a Transparent VAE; any other VAE as it is."""
    return vae.opaque if isinstance(vae, TransparentVAE) else vae


def _crop(pixels: Tensor) -> Tensor:
    """The middle of the pictures, in whole latent cells, as the host's own VAE crops them."""
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
