"""The adjoint of a 2-d convolution, by whichever of three equal ways is fastest for its shape."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = tuple[int, int]

_LAST = torch.channels_last
_THIN = 9  # a result with fewer channels starves a transposed convolution
_FEW = 16  # where neither side has more channels than this,
_SMALL = 3.0  # a dense matrix may do this many times the multiplications of the sparse sum,
_SMALL_THIN = 6.5  # and this many where the result is thin


@dataclass(frozen=True)
class Layout:
    """Where a 2-d convolution puts its kernel; `size` is the map that it reads."""

    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    size: Pair


def reach(size: Sequence[int], kernel: Sequence[int], stride: Pair, dilation: Pair) -> Pair:
    """Height and width that windows of `size` outputs read."""
    high, wide = (
        (n - 1) * s + d * (k - 1) + 1
        for n, s, d, k in zip(size, stride, dilation, kernel, strict=True)
    )
    return high, wide


def laid(maps: Tensor) -> Tensor:
    """Maps [B, C, H, W] with the channels last in memory, as convolutions on a CPU like best."""
    if maps.ndim != 4:
        return maps
    last = maps.permute(0, 2, 3, 1).contiguous()
    count, high, wide, channels = last.shape  # strides of a single channel may be any: say them
    return last.as_strided(
        (count, channels, high, wide), (high * wide * channels, 1, wide * channels, channels)
    )


def adjoint(rows: Tensor, weight: Tensor, layout: Layout) -> Tensor:
    """rows [N, out, h, w] times a convolution's matrix: [N, in, *layout.size].

    weight [out, in / groups, kh, kw]. Tiny maps become one dense matrix, strided ones with a
    thin result or a kernel of one value an ordinary convolution for each phase of the stride; the
    rest is a transposed convolution.
    """
    full = reach(rows.shape[2:], weight.shape[2:], layout.stride, layout.dilation)
    sy, sx = layout.stride
    waste = full[0] * full[1] / weight.shape[2:].numel()  # of a dense matrix over the sparse sum
    thin = weight.shape[1] < _THIN
    most = (_SMALL_THIN if thin else _SMALL) if max(weight.shape[:2]) <= _FEW else 1
    if layout.groups == 1 and waste <= most:
        return _fit(_as_matrix(rows, weight, layout), layout)
    plain = layout.groups == 1 and layout.dilation == (1, 1)
    if plain and sy == sx > 1 and (thin or weight.shape[2:].numel() == 1):
        return _fit(_by_phases(rows, weight, sy), layout)
    missing = [n + 2 * p - f for n, p, f in zip(layout.size, layout.padding, full, strict=True)]
    rows = rows.contiguous(memory_format=_LAST)
    return F.conv_transpose2d(
        rows, weight, None, layout.stride, layout.padding, missing, layout.groups, layout.dilation
    )


def _fit(full: Tensor, layout: Layout) -> Tensor:
    """Without the padding, and with zeros where the stride left the end of the map out."""
    (py, px), (high, wide) = layout.padding, layout.size
    widths = (-px, wide + px - full.shape[3], -py, high + py - full.shape[2])
    if not any(widths):
        return full
    laid = F.pad(full.permute(0, 2, 3, 1), (0, 0, *widths))  # keeps the channels last
    return laid.permute(0, 3, 1, 2)


def _as_matrix(rows: Tensor, weight: Tensor, layout: Layout) -> Tensor:
    """All places of the map at once, as one dense matrix [place, out] x [y, x, in]."""
    n, out, high, wide = rows.shape
    (kh, kw), channels = weight.shape[2:], weight.shape[1]
    (sy, sx), (dy, dx) = layout.stride, layout.dilation
    full = reach((high, wide), (kh, kw), layout.stride, layout.dilation)
    kernel = weight.permute(0, 2, 3, 1)
    if high * wide == 1 and (dy, dx) == (1, 1):
        matrix = kernel
    else:
        matrix = weight.new_zeros(high, wide, out, *full, channels)
        for y in range(high):
            for x in range(wide):
                span = slice(y * sy, y * sy + dy * (kh - 1) + 1, dy)
                across = slice(x * sx, x * sx + dx * (kw - 1) + 1, dx)
                matrix[y, x, :, span, across] = kernel
    flat = rows.permute(0, 2, 3, 1).reshape(n, high * wide * out)
    found = flat @ matrix.reshape(high * wide * out, -1)
    return found.view(n, *full, channels).permute(0, 3, 1, 2)


def _by_phases(rows: Tensor, weight: Tensor, stride: int) -> Tensor:
    """out[y s + a] = sum_j rows[y - j] weight[j s + a]: a convolution whose channels are the phases a."""
    out, channels, *kernel = weight.shape
    taps = [-(-k // stride) for k in kernel]
    padded = F.pad(weight, (0, taps[1] * stride - kernel[1], 0, taps[0] * stride - kernel[0]))
    split = padded.view(out, channels, taps[0], stride, taps[1], stride)
    phases = split.permute(3, 5, 1, 0, 2, 4).reshape(-1, out, *taps).flip(2, 3)
    rows = rows.contiguous(memory_format=_LAST)
    found = F.conv2d(
        rows, phases.contiguous(memory_format=_LAST), padding=(taps[0] - 1, taps[1] - 1)
    )
    n, _, high, wide = found.shape
    found = found.permute(0, 2, 3, 1).reshape(n, high, wide, stride, stride, channels)
    found = found.transpose(2, 3).reshape(n, high * stride, wide * stride, channels)
    return found.permute(0, 3, 1, 2)
