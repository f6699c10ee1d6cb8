"""Intervals and planes for products of two values.

A plane is one of McCormick's envelope (McCormick 1976) or between two of them, anchored at the value
a of [l_x, u_x] that is nearest to zero: with centre c and half width d of y,

    x y = a y + (x - a) c + (x - a) (y - c),   |(x - a) (y - c)| <= |x - a| d <= chord(x) d

with the chord of |x - a| on [l_x, u_x]. Among all planes of the envelope these leave y the smallest
coefficient, the least that bounds on a box need; the planes at fixed corners of Shi et al. 2020
(Robustness Verification for Transformers) are the case of x >= 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from certus.graph.bilinear import Mul, Product
from certus.graph.op import Shape
from certus.relax.interval import intervals
from certus.relax.lines import Interval, Relaxation, relaxations
from certus.threats.box import inner

_BLOCK = 2**22  # elementary products that are alive at the same time


@dataclass(frozen=True, eq=False)
class Band(Relaxation):
    """|z - (x_slope x + y_slope y + middle)| <= x_spread x + y_spread y + radius, all [B, *out]."""

    x_slope: Tensor
    y_slope: Tensor
    middle: Tensor
    x_spread: Tensor
    y_spread: Tensor
    radius: Tensor
    shapes: tuple[Shape, Shape]

    def pull(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """The centre, less the spread times absolute coefficients."""
        size = rows.abs()
        x = torch.addcmul(rows * self.x_slope, size, self.x_spread, value=-1)
        y = torch.addcmul(rows * self.y_slope, size, self.y_spread, value=-1)
        offset = inner(rows, self.middle) - inner(size, self.radius)
        return (onto(x, self.shapes[0]), onto(y, self.shapes[1])), offset


@dataclass(frozen=True, eq=False)
class MatrixBand(Relaxation):
    """The same for z = x y, with matrix products alone.

    centre and half_width [B, *, K, N] are those of y; anchor and chord [B, *, M, K] belong to x;
    middle and radius are [B, *, M, N].
    """

    centre: Tensor
    half_width: Tensor
    anchor: Tensor
    chord: Tensor
    middle: Tensor
    radius: Tensor
    shapes: tuple[Shape, Shape]
    transpose_second: bool

    def pull(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """r c^T - chord (|r| d^T) for x, a^T r for y.

        With the rows' own dimension next to the last, every product is one of large matrices.
        """
        rows = rows.movedim(0, -2).contiguous()  # [B, *, M, R, N]
        size, split = rows.abs(), rows.shape[-3:-1]
        spread = (size.flatten(-3, -2) @ self.half_width.mT).unflatten(-2, split)
        x = (rows.flatten(-3, -2) @ self.centre.mT).unflatten(-2, split)
        x = torch.addcmul(x, spread, self.chord.unsqueeze(-2), value=-1).movedim(-2, 0)
        if self.transpose_second:
            y = (rows.flatten(-2).mT @ self.anchor).unflatten(-2, rows.shape[-2:]).movedim(-3, 0)
        else:
            y = (self.anchor.mT @ rows.flatten(-2)).unflatten(-1, rows.shape[-2:]).movedim(-2, 0)
        offset = self.middle.unsqueeze(-2) @ rows.mT - self.radius.unsqueeze(-2) @ size.mT
        offset = offset.reshape(len(offset), -1, offset.shape[-1]).sum(1).T
        return (onto(x, self.shapes[0]), onto(y, self.shapes[1])), offset


@relaxations.register(Mul)
def mul(op: Mul, x: Interval, y: Interval) -> Band:
    """Anchored at the factor that is narrower for its size, element by element."""
    shapes = (tuple(x[0].shape[1:]), tuple(y[0].shape[1:]))
    (x_slope, y_slope, at_x), (y_other, x_other, at_y) = _one_sided(x, y), _one_sided(y, x)
    narrow = _size(y) * (x[1] - x[0]) <= _size(x) * (y[1] - y[0])
    zero = torch.zeros_like(at_x[0])
    return Band(
        torch.where(narrow, x_slope, x_other),
        torch.where(narrow, y_slope, y_other),
        torch.where(narrow, at_x[1], at_y[1]),
        torch.where(narrow, at_x[0], zero),
        torch.where(narrow, zero, at_y[0]),
        torch.where(narrow, at_x[2], at_y[2]),
        shapes,
    )


def _one_sided(x: Interval, y: Interval) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Anchored at x: slopes of x and y, and (spread of x, middle, radius)."""
    anchor, chord, height = _anchored(x)
    centre, half = (y[0] + y[1]) / 2, (y[1] - y[0]) / 2
    return centre, anchor, (chord * half, -anchor * centre, height * half)


@relaxations.register(Product)
def matrix_product(op: Product, x: Interval, y: Interval) -> MatrixBand:
    """Anchored at the first factor (the weights of an attention), so that pulls are products."""
    shapes = (tuple(x[0].shape[1:]), tuple(y[0].shape[1:]))
    anchor, chord, height = _anchored(x)
    low, high = op.second(y[0]), op.second(y[1])
    centre, half = (low + high) / 2, (high - low) / 2
    return MatrixBand(
        *(centre, half, anchor, chord, -(anchor @ centre), height @ half),
        *(shapes, op.transpose_second),
    )


def _anchored(x: Interval) -> tuple[Tensor, Tensor, Tensor]:
    """The value a nearest to zero, and slope and height of a line above |x - a| on the interval."""
    low, high = x
    anchor = low.clamp(min=0) + high.clamp(max=0)
    width = high - low
    wide = width > torch.finfo(width.dtype).tiny
    slope = (low + high - 2 * anchor) / torch.where(wide, width, torch.ones_like(width))
    height = torch.maximum(anchor - low - slope * low, high - anchor - slope * high)
    return anchor, slope, height


def _size(x: Interval) -> Tensor:
    return x[0].abs() + x[1].abs()


@intervals.register(Mul)
def mul_range(op: Mul, x: Interval, y: Interval) -> Interval:
    """The four corners: exact."""
    first, second, third, fourth = (op.forward(a, b) for a in x for b in y)
    return (
        torch.minimum(torch.minimum(first, second), torch.minimum(third, fourth)),
        torch.maximum(torch.maximum(first, second), torch.maximum(third, fourth)),
    )


@intervals.register(Product)
def product_range(op: Product, x: Interval, y: Interval) -> Interval:
    """Sums of the exact ranges of x_mk y_kn: exact for each element of the product."""
    y = op.second(y[0]), op.second(y[1])
    if bool((x[0] >= 0).all()):
        return _nonnegative(x, y)
    lower, upper = x[0].new_zeros(()), x[0].new_zeros(())
    for part in _blocks(x[0].shape, y[0].shape):
        left = x[0][..., part].unsqueeze(-1), x[1][..., part].unsqueeze(-1)
        right = y[0][..., part, :].unsqueeze(-3), y[1][..., part, :].unsqueeze(-3)
        low, high = mul_range(Mul(), left, right)
        lower, upper = lower + low.sum(-2), upper + high.sum(-2)
    return lower, upper


def _nonnegative(x: Interval, y: Interval) -> Interval:
    """For x >= 0 (weights of an attention) the corner follows from the sign of y."""
    lower = x[0] @ y[0].clamp(min=0) + x[1] @ y[0].clamp(max=0)
    upper = x[1] @ y[1].clamp(min=0) + x[0] @ y[1].clamp(max=0)
    return lower, upper


def _blocks(x: torch.Size, y: torch.Size) -> Iterator[slice]:
    """The inner dimension in pieces."""
    batch = torch.Size(torch.broadcast_shapes(x[:-2], y[:-2])).numel()
    step = max(1, _BLOCK // max(1, batch * x[-2] * y[-1]))
    return (slice(k, k + step) for k in range(0, x[-1], step))


def onto(rows: Tensor, shape: Shape) -> Tensor:
    """Rows [R, B, *spread] summed over what broadcasting has spread from [*shape]."""
    spread = [d for d, (a, s) in enumerate(zip(rows.shape[2:], shape, strict=True), 2) if a != s]
    return rows.sum(spread, keepdim=True) if spread else rows
