"""Control maps of the given layer that steers attention sharing, at the size and place of the part of the picture that is sampled.

Shapes: G conditions of a run, M channels of a map, h x w cells at one level of the UNet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.conds
import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP
from torch import Tensor

from ...nets.attention_sharing import AttentionSharing
from ...pixels.fit import fit_to
from ..layers import LATENT_SCALE

GREY = 0.5


class ControlMaps:
    """Control maps of one picture. They are computed once per size and device, and deleted when the sampling ends."""

    def __init__(self, picture: Tensor, fit: str, net: AttentionSharing, network_key: str, fill: Sequence[float] = ()):
        """picture [1, H, W, C] in [0, 1], float32; fit: how it is brought to the size of the generation.

        fill: of every channel, what "fit" puts around the picture; grey around its colours and 0 around all else if not given.
        network_key: where the options of a run hold the network whose control encoder makes the maps, if not `net`.
        """
        self.picture = picture.movedim(-1, 1)  # BHWC -> BCHW
        self.fit = fit
        self.fill = torch.tensor([*fill] or [GREY if channel < 3 else 0.0 for channel in range(picture.shape[-1])])
        self.net, self.network_key = net, network_key
        self.key = f"{network_key}.control"
        self._maps: dict[tuple[Any, ...], list[Tensor]] = {}

    def attach(self, model: ModelPatcher) -> None:
        model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, self.key, self._give_to_areas)
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, self.key, self._take_from_areas)
        model.add_callback_with_key(CallbacksMP.ON_CLEANUP, self.key, lambda *_: self._maps.clear())

    def map_for(self, level: int, options: dict[str, Any]) -> Tensor:
        """The control map [G, M, h, w] for the attention module whose options these are, G = 1 or the number of conditions.

        level: how often the UNet has halved the latent there. Where a patch of another node has changed its size (Deep Shrink), the
        level's map is brought to it.
        """
        maps = options.get(self.key)
        if maps is None:
            place = (options["sigmas"].device, *options["original_shape"][-2:])
            if place not in self._maps:
                self._maps[place] = self._encode(self._at(place[1:]), options)
            maps = self._maps[place]
        size = tuple(options["activations_shape"][-2:])
        return maps[level] if tuple(maps[level].shape[2:]) == size else F.interpolate(maps[level], size, mode="bilinear")

    def _at(self, latent_size: tuple[int, ...]) -> Tensor:
        return fit_to(self.picture, latent_size[0] * LATENT_SCALE, latent_size[1] * LATENT_SCALE, self.fit, self.fill)

    def _encode(self, picture: Tensor, options: dict[str, Any]) -> list[Tensor]:
        encoder = options.get(self.network_key, self.net).kwargs_encoder
        first = next(encoder.parameters())
        return encoder((picture * 2.0 - 1.0).to(device=options["sigmas"].device, dtype=first.dtype))

    def _give_to_areas(self, executor: Callable[..., Any], model: Any, conds: list[Any], x: Tensor, *args: Any) -> Any:
        # A condition for a part of the picture needs that part of the control picture. Folded to the latent's size, ComfyUI crops it.
        def given(cond: dict[str, Any]) -> dict[str, Any]:
            if "area" not in cond:
                return cond
            folded = F.pixel_unshuffle(self._at(tuple(x.shape[2:])), LATENT_SCALE).to(x.device)
            return {**cond, "model_conds": {**cond["model_conds"], self.key: comfy.conds.CONDNoiseShape(folded)}}

        return executor(model, [None if entries is None else [given(c) for c in entries] for entries in conds], x, *args)

    def _take_from_areas(
        self, executor: Callable[..., Any], x: Tensor, timesteps: Any, context: Any, y: Any, control: Any, options: dict, **kwargs: Any
    ) -> Any:
        folded = kwargs.pop(self.key, None)
        if folded is not None:
            rows = x.shape[0] // len(options["cond_or_uncond"])
            options = {**options, self.key: self._encode(F.pixel_shuffle(folded[::rows].float(), LATENT_SCALE), options)}
        return executor(x, timesteps, context, y, control, options, **kwargs)
