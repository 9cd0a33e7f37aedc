"""Attention sharing written out row by row in plain torch from docs/facts.md section 6, put in the place of a model's attention modules."""

# The host is not typed, and what it infers is often too narrow.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportMissingImports=false, reportReturnType=false
from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from tests.host.reference import copy_of


class SharedAttention(nn.Module):
    """One unit of docs/facts.md section 6 around the weights of one attention module, row by row, with merged weights."""

    def __init__(self, attention: Any, weights: Mapping[str, Tensor], frames: int, weight: float):
        super().__init__()
        self.heads = attention.heads
        self.base = {p: getattr(attention, f"to_{p}").weight.detach().clone() for p in "qkv"}
        self.base["out"] = attention.to_out[0].weight.detach().clone()
        self.bias = attention.to_out[0].bias.detach().clone()
        self.own = weights
        self.frames = frames
        self.weight = weight
        self.pictures: list[list[Tensor]] = []  # control maps; one set for all rows, or one for each
        self.more: Callable[[int, Tensor, dict[str, Any]], Tensor] | None = None  # a second attention, like IPAdapter's
        self.texts: Callable[[int], Tensor] | None = None  # row -> its own text [T, D], of any length
        self.perturbed = False  # as PAG wants it: every place attends to itself alone
        self.seen: list[Tensor] = []  # attention maps of the last call, a row each [heads, T, T]
        self.parts: list[int] = []  # which parts of the guidance they belong to

    def projection(self, name: str, frame: int) -> Tensor:
        up, down = (self.own[f"to_{name}_lora.{frame}.{part}.weight"].float() for part in ("up", "down"))
        return self.base[name] + self.weight * (up @ down)

    def layer(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.own[f"temporal_{name}.weight"].float(), self.own[f"temporal_{name}.bias"].float())

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(0, 1) for x in (q, k, v))  # T(hc) -> hTc
        scores = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)
        return (scores @ v).transpose(0, 1).flatten(1), scores

    def signal(self, row: int, frame: int, tokens: int) -> Tensor:
        maps = self.pictures[row if len(self.pictures) > 1 else 0]
        found = next(m for m in maps if m.shape[1] * m.shape[2] == tokens)
        for n, padding in ((0, 1), (2, 0)):
            weight, bias = (self.own[f"control_convs.{frame}.{n}.{part}"].float() for part in ("weight", "bias"))
            found = F.conv2d(found[None] if n == 0 else F.silu(found), weight, bias, padding=padding)
        return found[0].flatten(1).T * self.weight

    def forward(
        self, x: Tensor, context: Tensor | None = None, value: Tensor | None = None, mask: None = None, transformer_options: Any = None
    ) -> Tensor:
        results, inputs = [], []
        self.seen = []
        self.parts = transformer_options["cond_or_uncond"]
        for row, h in enumerate(x):
            frame = row % self.frames
            m = h + self.signal(row, frame, len(h)) if self.pictures else h
            text = m if context is None else context[row] if self.texts is None else self.texts(row)
            q, k, v = (
                F.linear(y, self.projection(p, frame)) for p, y in zip("qkv", (m, text, text if value is None else value[row]), strict=True)
            )
            found, scores = self.attend(q, k, v)
            self.seen.append(scores)
            if self.perturbed:
                found = v
            if self.more is not None:
                found = found + self.more(row, q, transformer_options)
            results.append(m + F.linear(found, self.projection("out", frame), self.bias))
            inputs.append(h)
        return torch.stack(self.shared(results)) - torch.stack(inputs)

    def shared(self, results: list[Tensor]) -> list[Tensor]:
        """All rows after the attention among the frames of each set."""
        results = [*results]
        for first in range(0, len(results), self.frames):
            rows = torch.stack(results[first : first + self.frames])  # FTC
            normed = F.layer_norm(rows, rows.shape[-1:], self.own["temporal_n.weight"].float(), self.own["temporal_n.bias"].float(), 1e-6)
            inner = self.layer("i", normed)
            q, k, v = (self.layer(p, inner).unflatten(-1, (self.heads, -1)) for p in "qkv")  # FThc
            scores = (torch.einsum("fthc,gthc->thfg", q, k) / q.shape[-1] ** 0.5).softmax(-1)
            mixed = self.layer("o", torch.einsum("thfg,gthc->fthc", scores, v).flatten(2))
            results[first : first + self.frames] = rows + self.weight * mixed
        return results


class Shared:
    """A copy of an SD1.5 model whose attention modules are the written-out ones."""

    def __init__(
        self,
        model: ModelPatcher,
        weights: Mapping[str, Tensor],
        *,
        weight: float = 1.0,
        picture: Tensor | None = None,
        unit_class: type[SharedAttention] = SharedAttention,
    ):
        """picture [1, H, W, 3] in [0, 1], at the size of the generation."""
        self.model = copy_of(model)
        self.encoder = {key: tensor.float() for key, tensor in weights.items() if key.startswith("kwargs_encoder.")}
        frames = 1 + max(int(found[1]) for key in weights if (found := re.search(r"to_q_lora\.(\d+)\.", key)))
        blocks = [f"input_blocks.{i}" for i in (1, 2, 4, 5, 7, 8)] + [f"output_blocks.{i}" for i in range(3, 12)] + ["middle_block"]
        self.units: dict[tuple[str, str], SharedAttention] = {}
        for n, (block, name) in enumerate((block, name) for block in blocks for name in ("attn1", "attn2")):
            parent = self.model.model.diffusion_model.get_submodule(f"{block}.1.transformer_blocks.0")
            prefix = f"hookers.layers.{n}."
            own = {key.removeprefix(prefix): tensor for key, tensor in weights.items() if key.startswith(prefix)}
            unit = unit_class(getattr(parent, name), own, frames, weight)
            setattr(parent, name, unit)
            self.units[block, name] = unit
        if picture is not None:
            self.steer([picture])

    def steer(self, pictures: list[Tensor]) -> None:
        """One control picture for all rows of the batch, or one for each row."""
        maps = [control_maps(self.encoder, picture) for picture in pictures]
        for unit in self.units.values():
            unit.pictures = maps


def control_maps(encoder: Mapping[str, Tensor], picture: Tensor) -> list[Tensor]:
    """The control encoder, written out: [1, H, W, 3] in [0, 1] -> four maps [M, h, w]."""
    x = picture.movedim(-1, 1) * 2 - 1
    maps = []
    for block in range(4):
        for n in range(0, 16, 2):
            key = f"kwargs_encoder.blocks_{block}.{n}"
            if f"{key}.weight" not in encoder:
                break
            stride = 2 if (block == 0 and n in (4, 8, 12)) or (block > 0 and n == 0) else 1
            x = F.silu(F.conv2d(x, encoder[f"{key}.weight"], encoder[f"{key}.bias"], stride=stride, padding=1))
        maps.append(x[0])
    return maps
