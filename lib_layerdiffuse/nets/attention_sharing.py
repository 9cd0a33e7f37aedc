"""Attention sharing (paper section 3.3): the layers of one picture, side by side in a batch, see each other (docs/facts.md section 6).

The batch is N sets of F consecutive frames: row i is frame i % F. Each of the UNet's attention modules has a unit here, which holds
the low-rank changes of each frame, and an attention among the frames at the same place. Units do not depend on the UNet: the code that
patches one calls them around its attention modules.

Letters of shapes: n sets, f frames, t tokens, c channels; g given pictures (one for each set, or one for all), m channels of a control map,
h and w its height and width. All results have the dtype and device of the input.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .low_rank import LowRank
from .operations import Operations, build

PROJECTIONS = ("q", "k", "v", "out")
NORM_EPS = 1e-6
CELL = 8  # pixels of a latent's cell, along either side
CONTROL_HALVINGS = (2, 4, 6)  # convolutions of the control encoder's first part that halve the picture

# (q, k, v [b, t, c], heads) -> [b, t, c]
Attention = Callable[[Tensor, Tensor, Tensor, int], Tensor]
Shapes = Mapping[str, tuple[int, ...]]


def plain_attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention in plain torch."""
    q, k, v = (rearrange(x, "b t (heads c) -> b heads t c", heads=heads) for x in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v), "b heads t c -> b t (heads c)")


class ControlConv(nn.Sequential):
    """A control map [g, m, h, w] -> what it adds to an attention module's input [g, c, h, w]."""

    def __init__(self, map_channels: int, hidden: int, channels: int, ops: Operations, **factory):
        super().__init__(ops.Conv2d(map_channels, hidden, 3, padding=1, **factory), nn.SiLU(), ops.Conv2d(hidden, channels, 1, **factory))


class SharingUnit(nn.Module):
    """What one attention module needs to be shared by `frames` frames."""

    def __init__(self, prefix: str, shapes: Shapes, frames: int, ops: Operations, **factory):
        """prefix: of the unit's keys in `shapes`."""
        super().__init__()
        self.frames = frames

        def low_rank(projection: str) -> nn.ModuleList:
            rank, in_channels = shapes[f"{prefix}to_{projection}_lora.0.down.weight"]
            channels = shapes[f"{prefix}to_{projection}_lora.0.up.weight"][0]
            return nn.ModuleList([LowRank(in_channels, channels, rank, ops, **factory) for _ in range(frames)])

        self.to_q_lora, self.to_k_lora, self.to_v_lora, self.to_out_lora = (low_rank(p) for p in PROJECTIONS)
        channels = shapes[f"{prefix}temporal_i.weight"][0]
        self.channels = channels
        self.context_dim = shapes[f"{prefix}to_k_lora.0.down.weight"][1]
        self.temporal_n = ops.LayerNorm(channels, eps=NORM_EPS, **factory)
        self.temporal_i, self.temporal_q, self.temporal_k, self.temporal_v, self.temporal_o = (
            ops.Linear(channels, channels, **factory) for _ in range(5)
        )
        self.control_convs: nn.ModuleList | None = None
        if f"{prefix}control_convs.0.0.weight" in shapes:
            hidden, map_channels = shapes[f"{prefix}control_convs.0.0.weight"][:2]
            self.control_convs = nn.ModuleList([ControlConv(map_channels, hidden, channels, ops, **factory) for _ in range(frames)])

    def change(self, projection: str, x: Tensor) -> Tensor:
        """What each frame's own weights add to a projection: [(n f), t, c] -> [(n f), t, c']."""
        layers = getattr(self, f"to_{projection}_lora")
        if self.frames == 1:
            return layers[0](x)
        rows = rearrange(x, "(n f) t c -> f n t c", f=self.frames)
        added = torch.stack([layer(rows[frame]) for frame, layer in enumerate(layers)], dim=1)
        return rearrange(added, "n f t c -> (n f) t c")

    def control(self, signal: Tensor) -> Tensor:
        """Control maps [g, m, h, w] -> what they add to the module's input, frame by frame: [g, f, (h w), c]."""
        assert self.control_convs is not None
        return rearrange(torch.stack([conv(signal) for conv in self.control_convs]), "f g c h w -> g f (h w) c")

    def temporal(self, x: Tensor, heads: int, attention: Attention = plain_attention) -> Tensor:
        """Attention among the frames at the same place: [(n f), t, c] -> what it adds, [(n f), t, c]."""
        tokens = x.shape[1]
        x = self.temporal_n(x)
        if self.frames == 1:  # one frame attends only to itself
            return self.temporal_o(self.temporal_v(self.temporal_i(x)))
        x = self.temporal_i(x)
        # The linear layers run before the rows are rearranged: after it they would be many small products.
        q, k, v = self.temporal_q(x), self.temporal_k(x), self.temporal_v(x)
        q, k, v = (rearrange(y, "(n f) t c -> (n t) f c", f=self.frames) for y in (q, k, v))
        return self.temporal_o(rearrange(attention(q, k, v, heads), "(n t) f c -> (n f) t c", t=tokens))

    def multiply_out(self, device: torch.device, merged: bool) -> None:
        """For inference: one matrix for several in a row, where that is less work. The unit no longer has the keys of the file then.

        Of a whole SD1.5 step at 512x512 this saves 6 % of the operations and of the calls for one frame, 8 % of the calls for three.
        device: does the work. merged: the low-rank changes are merged with the model's own weights, so they are left out.
        """
        if merged:
            self.to_q_lora = self.to_k_lora = self.to_v_lora = self.to_out_lora = nn.ModuleList()
        for low_rank in cast(list[LowRank], [*self.to_q_lora, *self.to_k_lora, *self.to_v_lora, *self.to_out_lora]):
            rank, in_channels = low_rank.down.weight.shape
            channels = low_rank.up.weight.shape[0]
            if in_channels * channels < rank * (in_channels + channels):
                _multiply(device, low_rank.down, low_rank.up)
                low_rank.up = nn.Identity()
        if self.frames == 1:
            _multiply(device, self.temporal_i, self.temporal_v, self.temporal_o)
            for part in "qkvo":
                setattr(self, f"temporal_{part}", nn.Identity())


@torch.no_grad()
def _multiply(device: torch.device, first: nn.Linear, *others: nn.Linear) -> None:
    """Make the first of several linear layers in a row, all with a bias or none, compute what all of them do.

    Products in float32; the first layer keeps its dtype and device.
    """
    weight, bias = first.weight.to(device, torch.float32), first.bias
    for layer in others:
        matrix = layer.weight.to(weight)
        weight = matrix @ weight
        if bias is not None:
            bias = matrix @ bias.to(weight) + layer.bias.to(weight)
    first.out_features = len(weight)
    first.weight = nn.Parameter(weight.to(first.weight), requires_grad=False)
    if bias is not None:
        first.bias = nn.Parameter(bias.to(first.weight), requires_grad=False)


class ControlEncoder(nn.Module):
    """The given layer's picture [g, 3, H, W] in [-1, 1] -> control maps [g, m, h, w] at 1/8, 1/16, 1/32 and 1/64.

    A file may read more channels than 3: a trained brush reads the area and its precision beside the picture.
    """

    def __init__(self, prefix: str, shapes: Shapes, ops: Operations, **factory):
        super().__init__()

        def part(name: str, halvings: tuple[int, ...]) -> nn.Sequential:
            layers: list[nn.Module] = []
            while (key := f"{prefix}{name}.{len(layers)}.weight") in shapes:
                channels, in_channels = shapes[key][:2]
                stride = 2 if len(layers) // 2 in halvings else 1
                layers += [ops.Conv2d(in_channels, channels, 3, stride=stride, padding=1, **factory), nn.SiLU()]
            return nn.Sequential(*layers)

        self.blocks_0 = part("blocks_0", CONTROL_HALVINGS)
        self.blocks_1, self.blocks_2, self.blocks_3 = (part(f"blocks_{scale}", (0,)) for scale in (1, 2, 3))

    def forward(self, picture: Tensor) -> list[Tensor]:
        maps = [picture]
        for part in (self.blocks_0, self.blocks_1, self.blocks_2, self.blocks_3):
            maps.append(part(maps[-1]))
        return maps[1:]


class Hookers(nn.Module):
    """Only the level `hookers.` in the released key names."""

    def __init__(self, units: list[SharingUnit]):
        super().__init__()
        self.layers = nn.ModuleList(units)


class AttentionSharing(nn.Module):
    """All units of a released file, in its order (`hookers.layers.N`), and its control encoder if it has one."""

    def __init__(self, shapes: Shapes, ops: Operations = nn, **factory):
        super().__init__()
        first = "hookers.layers.0.to_q_lora."
        self.frames = len({key.removeprefix(first).split(".")[0] for key in shapes if key.startswith(first)})
        count = 1 + max((int(match[1]) for key in shapes if (match := re.match(r"hookers\.layers\.(\d+)\.", key))), default=-1)
        self.hookers = Hookers([SharingUnit(f"hookers.layers.{n}.", shapes, self.frames, ops, **factory) for n in range(count)])
        has_control = any(key.startswith("kwargs_encoder.") for key in shapes)
        self.kwargs_encoder = ControlEncoder("kwargs_encoder.", shapes, ops, **factory) if has_control else None
        self.mask_head: nn.Conv2d | None = None
        if "mask_head.weight" in shapes:
            squares, channels = shapes["mask_head.weight"][:2]
            if squares != CELL**2:
                raise ValueError(f"a mask head has {CELL**2} channels, got {squares}")
            self.mask_head = ops.Conv2d(channels, squares, 3, padding=1, **factory)

    def object_mask(self, features: Tensor) -> Tensor:
        """Where the object is, as a trained brush predicts it.

        features [n, c, h, w]: of the foreground frames, what the UNet's last convolution reads -> [n, 1, H, W] in [0, 1], at the
        pixels' size: the head's channels are squares of pixels.
        """
        assert self.mask_head is not None
        squares = self.mask_head(features)
        return F.pixel_shuffle(squares, CELL).sigmoid()

    @property
    def units(self) -> list[SharingUnit]:
        return cast(list[SharingUnit], list(self.hookers.layers))

    @classmethod
    def from_shapes(cls, shapes: Shapes, ops: Operations = nn, **factory) -> AttentionSharing:
        """The network, without weights, that weights of these shapes belong to. Raises KeyError for a key that every unit has."""
        return cls(shapes, ops, **factory)

    @classmethod
    def from_state_dict(cls, sd: Mapping[str, Tensor], ops: Operations = nn, **factory) -> AttentionSharing:
        """The network that `sd` belongs to, with its weights, for inference. `factory`: dtype and device (those of the weights)."""
        return build(cls, sd, ops, factory)
