"""Norm, activation and convolution of large feature maps in strips of rows, with the same result as in one go.

One after another over the whole picture, each writes a map as large as it read, and the next reads it back from memory: for the
transparency decoder that, not the arithmetic, sets the peak. A strip is normalised, activated and convolved while it is in the cache, and
only the result is kept. Group norms need the whole map once, for their statistics.

For inference: nothing here is remembered for gradients, and `into` overwrites what it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Values of a strip [B, C, rows, W]. Small ones stay in a processor's cache; a graphics card wants enough of them to be busy.
STRIP_VALUES = {"cpu": 1 << 20}
LARGE_STRIP_VALUES = 1 << 24
TINY = 1e-12  # in place of a norm's own epsilon, where the variance is wanted

Convolution = Callable[[Tensor], Tensor]


def strip_rows(x: Tensor, channels: int) -> int:
    """How many rows of a map [B, channels, H, W] of the size of `x` make a strip; an even number."""
    values = STRIP_VALUES.get(x.device.type, LARGE_STRIP_VALUES)
    return max(8, values // (x.shape[0] * channels * x.shape[3]) // 2 * 2)


def norm_silu_conv(
    parts: Sequence[Tensor],
    norm: nn.GroupNorm,
    conv: Convolution,
    *,
    plus: Sequence[Tensor] = (),
    shortcut: Convolution | None = None,
    into: Tensor | None = None,
) -> Tensor:
    """`conv(silu(norm(cat(parts))))`, with `cat(plus)` or its shortcut added; conv has kernel 3, stride 1 and padding 1.

    parts, plus: maps [B, C_i, H, W], put together strip by strip. into: where the result goes, a map of its shape which may be one of
    `plus` but none of `parts`; a new one if None.
    """
    height = parts[0].shape[2]
    rows = strip_rows(parts[0], sum(part.shape[1] for part in parts))
    if rows >= height:
        result = conv(F.silu(norm(joined(parts)), inplace=True))
        return _plus(result, plus, shortcut, slice(None))
    scale, shift = _affine(norm, parts, rows)
    for rows_in, rows_out, kept in _strips(height, rows):
        strip = torch.addcmul(shift, joined([part[:, :, rows_in] for part in parts]), scale)
        result = conv(F.silu(strip, inplace=True))[:, :, kept]
        if into is None:
            into = _empty(parts[0], result.shape[1], height)
        into[:, :, rows_out] = _plus(result, plus, shortcut, rows_out)
    assert into is not None
    return into


def upsample_conv(x: Tensor, conv: Convolution) -> Tensor:
    """`conv` of the map [B, C, H, W] at twice the size, nearest: [B, C', 2 H, 2 W]."""
    height = x.shape[2]
    rows = strip_rows(x, 4 * x.shape[1])
    if rows >= height:
        return conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
    into: Tensor | None = None
    for rows_in, rows_out, kept in _strips(height, rows):
        result = conv(F.interpolate(x[:, :, rows_in], scale_factor=2.0, mode="nearest"))
        if into is None:
            into = _empty(result, result.shape[1], 2 * height)
        into[:, :, 2 * rows_out.start : 2 * rows_out.stop] = result[:, :, 2 * kept.start : 2 * kept.stop]
    assert into is not None
    return into


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Maps as one, along the channels."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)


def _plus(result: Tensor, plus: Sequence[Tensor], shortcut: Convolution | None, rows: slice) -> Tensor:
    if not plus:
        return result
    strip = joined([part[:, :, rows] for part in plus])
    return result.add_(strip if shortcut is None else shortcut(strip))


def _strips(height: int, rows: int) -> Iterator[tuple[slice, slice, slice]]:
    """For each strip: the rows to read, with a neighbour on either side; those to write; and where these are among the ones read."""
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        start = max(top - 1, 0)
        yield slice(start, min(bottom + 1, height)), slice(top, bottom), slice(top - start, bottom - start)


def _affine(norm: nn.GroupNorm, parts: Sequence[Tensor], rows: int) -> tuple[Tensor, Tensor]:
    """What a group norm multiplies and adds [B, C, 1, 1], from the statistics of all the rows."""
    height = parts[0].shape[2]
    counts, means, variances = [], [], []
    for top in range(0, height, rows):
        strip = _dense(joined([part[:, :, top : top + rows] for part in parts]).float())
        batch, channels, lines, width = strip.shape
        # Of the norm itself only its statistics are of use here; on a strip it is the fastest way to them.
        _, mean, rstd = torch.native_group_norm(strip, None, None, batch, channels, lines * width, norm.num_groups, TINY)
        counts.append(lines / height)
        means.append(mean)
        variances.append(rstd**-2 - TINY)
    share = torch.tensor(counts, device=means[0].device)[:, None, None]
    mean, variance = torch.stack(means), torch.stack(variances)
    middle = (share * mean).sum(dim=0)
    spread = (share * (variance + (mean - middle).square())).sum(dim=0)
    per_group = norm.num_channels // norm.num_groups
    rstd, middle = (x.repeat_interleave(per_group, dim=1) for x in ((spread + norm.eps).rsqrt(), middle))
    weight, bias = _weight_and_bias(norm, parts[0])
    scale = rstd * weight
    shift = bias - middle * scale
    return scale[:, :, None, None].to(parts[0].dtype), shift[:, :, None, None].to(parts[0].dtype)


def _weight_and_bias(norm: nn.GroupNorm, like: Tensor) -> tuple[Tensor, Tensor]:
    """What the norm multiplies by and adds, [C] each, float32, on the device of `like`.

    Asked of its own forward: the parameters may lie on another device, and only the layer brings them to where it computes. Of a 1 and
    a -1 in each channel the mean is 0 and the variance 1, so that the layer answers bias + weight and bias - weight.
    """
    # Layers of torch itself compute in the type of their parameters, which is that of the map.
    dtype = like.dtype if type(norm) is nn.GroupNorm else torch.float32
    probe = torch.tensor([1.0, -1.0], device=like.device, dtype=dtype).expand(1, norm.num_channels, 2)
    plus, minus = norm(probe)[0].float().unbind(dim=1)
    return (plus - minus) * (math.sqrt(1.0 + norm.eps) / 2.0), (plus + minus) / 2.0


def _dense(strip: Tensor) -> Tensor:
    """Rows of several pictures lie apart; those of one already are what the norm wants."""
    return strip.contiguous(memory_format=_layout(strip))


def _empty(like: Tensor, channels: int, height: int) -> Tensor:
    return torch.empty(like.shape[0], channels, height, like.shape[3], dtype=like.dtype, device=like.device, memory_format=_layout(like))


def _layout(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.stride(1) == 1 else torch.contiguous_format
