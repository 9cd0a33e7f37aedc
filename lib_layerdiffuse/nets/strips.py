"""Norm, activation and convolution of large feature maps in strips of rows, with the same result as in one go.

Over the whole map, each of the three would write a map as large as the one that it reads: these maps set the peak memory of the
transparency decoder. A strip is normalised, activated and convolved before the next one is read, and only the result is kept. A group
norm reads the whole map once before, for its statistics.

For inference only: no gradients, and `into` is overwritten. Maps are [B, C, H, W]; results have the dtype and device of the input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIP_VALUES = 1 << 24  # of a strip [B, C, rows, W]; enough to keep a graphics card busy

Convolution = Callable[[Tensor], Tensor]


def strip_rows(x: Tensor, channels: int) -> int:
    """How many rows of a map [B, channels, H, W], B, H and W those of `x`, make a strip; an even number."""
    return max(8, STRIP_VALUES // (x.shape[0] * channels * x.shape[3]) // 2 * 2)


def norm_silu_conv(
    parts: Sequence[Tensor],
    norm: nn.GroupNorm,
    conv: Convolution,
    *,
    plus: Sequence[Tensor] = (),
    shortcut: Convolution | None = None,
    into: Tensor | None = None,
) -> Tensor:
    """`conv(silu(norm(cat(parts))))`, with `shortcut(cat(plus))` added; conv has kernel 3, stride 1 and padding 1.

    parts, plus: maps [B, C_i, H, W], concatenated strip by strip. shortcut: identity if None. into: the map that the result is written
    to, which may be one of `plus` but none of `parts`; a new one if None.
    """
    height = parts[0].shape[2]
    rows = strip_rows(parts[0], sum(part.shape[1] for part in parts))
    if rows >= height:
        result = conv(F.silu(norm(joined(parts)), inplace=True))
        return _plus(result, plus, shortcut, slice(None))
    scale, shift = _affine(norm, parts, rows)
    for rows_in, rows_out, inner in _strips(height, rows):
        strip = torch.addcmul(shift, joined([part[:, :, rows_in] for part in parts]), scale)
        result = conv(F.silu(strip, inplace=True))[:, :, inner]
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
    for rows_in, rows_out, inner in _strips(height, rows):
        result = conv(F.interpolate(x[:, :, rows_in], scale_factor=2.0, mode="nearest"))
        if into is None:
            into = _empty(result, result.shape[1], 2 * height)
        into[:, :, 2 * rows_out.start : 2 * rows_out.stop] = result[:, :, 2 * inner.start : 2 * inner.stop]
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
    """For each strip: the rows to read, with one more on either side; the rows to write; the rows to write within those read."""
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        start = max(top - 1, 0)
        yield slice(start, min(bottom + 1, height)), slice(top, bottom), slice(top - start, bottom - start)


def _affine(norm: nn.GroupNorm, parts: Sequence[Tensor], rows: int) -> tuple[Tensor, Tensor]:
    """The scale and shift [B, C, 1, 1] that a group norm applies, from the statistics of all rows; the type of the maps."""
    height = parts[0].shape[2]
    fractions, means, variances = [], [], []
    for top in range(0, height, rows):
        strip = joined([part[:, :, top : top + rows] for part in parts]).float()
        groups = strip.unflatten(1, (norm.num_groups, -1)).flatten(3)  # [B, groups, C / groups, rows W]
        variance, mean = torch.var_mean(groups, dim=(2, 3), correction=0)
        fractions.append(strip.shape[2] / height)
        means.append(mean)
        variances.append(variance)
    fraction = torch.tensor(fractions, device=means[0].device)[:, None, None]
    strip_means, strip_variances = torch.stack(means), torch.stack(variances)
    mean = (fraction * strip_means).sum(dim=0)
    variance = (fraction * (strip_variances + (strip_means - mean).square())).sum(dim=0)
    per_group = norm.num_channels // norm.num_groups
    rstd, mean = (x.repeat_interleave(per_group, dim=1) for x in ((variance + norm.eps).rsqrt(), mean))
    weight, bias = _weight_and_bias(norm, parts[0])
    scale = rstd * weight
    shift = bias - mean * scale
    return scale[:, :, None, None].to(parts[0].dtype), shift[:, :, None, None].to(parts[0].dtype)


def _weight_and_bias(norm: nn.GroupNorm, like: Tensor) -> tuple[Tensor, Tensor]:
    """The norm's weight and bias, [C] each, float32, on the device of `like`.

    Computed with its own forward: the parameters may be on another device, and only the layer moves them. For 1 and -1 in each channel
    the mean is 0 and the variance 1, so that the layer returns bias + weight and bias - weight.
    """
    # Layers of torch itself compute in the type of their parameters, which is that of the map.
    dtype = like.dtype if type(norm) is nn.GroupNorm else torch.float32
    probe = torch.tensor([1.0, -1.0], device=like.device, dtype=dtype).expand(1, norm.num_channels, 2)
    plus, minus = norm(probe)[0].float().unbind(dim=1)
    return (plus - minus) * (math.sqrt(1.0 + norm.eps) / 2.0), (plus + minus) / 2.0


def _empty(like: Tensor, channels: int, height: int) -> Tensor:
    layout = torch.channels_last if like.stride(1) == 1 else torch.contiguous_format
    return torch.empty(like.shape[0], channels, height, like.shape[3], dtype=like.dtype, device=like.device, memory_format=layout)
