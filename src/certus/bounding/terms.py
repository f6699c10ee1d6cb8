"""How many roundings an affine operation takes, forwards and in the transpose."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch

from certus.core import Rules, UnsupportedError
from certus.graph.affine import (
    BatchNorm,
    Conv,
    ConvTranspose,
    Fourier,
    Interpolation,
    Linear,
    MatMul,
    Scale,
    Shift,
    Sum,
)
from certus.graph.op import Affine, Shape
from certus.graph.structural import (
    AdaptiveAvgPool,
    AvgPool,
    Concat,
    CumSum,
    Expand,
    Flip,
    Gather,
    Pad,
    Permute,
    Reduce,
    Reshape,
    Resize,
    ScatterAdd,
    Select,
    Slice,
)


@dataclass(frozen=True)
class Terms:
    """Roundings on the way to one element: of W x + b, and of row W. Zero: values only move."""

    forward: int
    backward: int

    @property
    def moves(self) -> bool:
        """Whether nothing is rounded in either direction."""
        return self.forward == 0 and self.backward == 0


# (op, shapes of the inputs, shape of the output) -> Terms; a rule states a bound on the roundings of
# one element that holds for every order of its sums and for every usual way of writing the operation
terms = Rules("rigorous arithmetic")


def _ratio(out: Shape, shapes: Sequence[Shape]) -> int:
    """Most outputs that read one input of a broadcast operation."""
    return max(-(-prod(out) // max(1, prod(shape))) for shape in shapes)


def _copies(count: int) -> int:
    """Additions that sum so many copies."""
    return count if count > 1 else 0


@terms.register(Reshape, Permute, Slice, Select, Concat, Flip)
def _moved(op: Affine, shapes: list[Shape], out: Shape) -> Terms:
    """Every output is one input, every input at most one output."""
    return Terms(0, 0)


@terms.register(Pad)
def _pad(op: Pad, shapes: list[Shape], out: Shape) -> Terms:
    """The padding value may round."""
    return Terms(0 if op.value == 0 else 1, 0)


@terms.register(Expand)
def _expand(op: Expand, shapes: list[Shape], out: Shape) -> Terms:
    """Copies; the transpose sums them."""
    return Terms(0, _copies(_ratio(out, shapes)))


@terms.register(Gather)
def _gather(op: Gather, shapes: list[Shape], out: Shape) -> Terms:
    """Copies; the transpose sums those of the value that is read most."""
    return Terms(0, _copies(int(torch.bincount(op.index).max()) if op.index.numel() else 0))


@terms.register(ScatterAdd)
def _scatter_add(op: ScatterAdd, shapes: list[Shape], out: Shape) -> Terms:
    """The sum at the place where most values meet; backwards copies."""
    return Terms(_copies(int(torch.bincount(op.index).max()) if op.index.numel() else 0), 0)


@terms.register(Linear)
def _linear(op: Linear, shapes: list[Shape], out: Shape) -> Terms:
    """A product for each input, and the bias."""
    return Terms(op.weight.shape[1] + 1, op.weight.shape[0])


@terms.register(Conv)
def _conv(op: Conv, shapes: list[Shape], out: Shape) -> Terms:
    """Kernel elements times channels of a group."""
    kernel = prod(op.weight.shape[2:])
    outputs = op.weight.shape[0] // op.groups
    return Terms(op.weight.shape[1] * kernel + 1, outputs * kernel)


@terms.register(ConvTranspose)
def _conv_transpose(op: ConvTranspose, shapes: list[Shape], out: Shape) -> Terms:
    """As for a convolution, the two directions swapped."""
    kernel = prod(op.weight.shape[2:])
    inputs = op.weight.shape[0] // op.groups
    return Terms(inputs * kernel + 1, op.weight.shape[1] * kernel)


@terms.register(BatchNorm)
def _batch_norm(op: BatchNorm, shapes: list[Shape], out: Shape) -> Terms:
    """Sum with epsilon (2), reciprocal root (4 ulp are 8 units), weight, mean, value, bias."""
    return Terms(16, 16)


@terms.register(Scale)
def _scale(op: Scale, shapes: list[Shape], out: Shape) -> Terms:
    """One product, or a quotient written as product with the reciprocal; a sign or a mask rounds nothing."""
    size = op.factor.to(torch.float64).abs()
    exact = (size == 1) if op.divide else (size == 1) | (size == 0)
    if bool(exact.all()):
        return Terms(0, _copies(_ratio(out, shapes)))
    return Terms(3, 3 + _ratio(out, shapes))


@terms.register(Shift)
def _shift(op: Shift, shapes: list[Shape], out: Shape) -> Terms:
    """The factor, the product, the sum."""
    return Terms(3, _copies(_ratio(out, shapes)))


@terms.register(Sum)
def _sum(op: Sum, shapes: list[Shape], out: Shape) -> Terms:
    """The factor, the product, the sum."""
    return Terms(3, 2 + _ratio(out, shapes))


@terms.register(MatMul)
def _matmul(op: MatMul, shapes: list[Shape], out: Shape) -> Terms:
    """The contracted dimension; backwards every input is read equally often."""
    side = -1 if op.left or op.matrix.ndim == 1 else -2
    inner = op.matrix.shape[side]
    return Terms(inner, -(-prod(out) * inner // max(1, prod(shapes[0]))) + 1)


@terms.register(Reduce)
def _reduce(op: Reduce, shapes: list[Shape], out: Shape) -> Terms:
    """The sum, the factor's own rounding and the product."""
    return Terms(-(-prod(shapes[0]) // max(1, prod(out))) + 2, 3)


@terms.register(AvgPool)
def _avg_pool(op: AvgPool, shapes: list[Shape], out: Shape) -> Terms:
    """The window and the quotient; backwards the windows that overlap."""
    overlap = prod(-(-k // s) for k, s in zip(op.kernel, op.stride, strict=True))
    return Terms(prod(op.kernel) + 2, overlap + 2)


@terms.register(AdaptiveAvgPool)
def _adaptive(op: AdaptiveAvgPool, shapes: list[Shape], out: Shape) -> Terms:
    """Windows differ by at most one element a side."""
    sides = list(zip(shapes[0][-len(op.size) :], op.size, strict=True))
    window = prod(-(-n // m) + 1 for n, m in sides)
    return Terms(window + 2, prod(-(-m // n) + 1 for n, m in sides) + 2)


@terms.register(CumSum)
def _cum_sum(op: CumSum, shapes: list[Shape], out: Shape) -> Terms:
    """At most the whole dimension."""
    length = shapes[0][op.dim - 1]
    return Terms(length, length)


@terms.register(Resize)
def _resize(op: Resize, shapes: list[Shape], out: Shape) -> Terms:
    """Copies; interpolation has weights that are themselves rounded, by no relative bound."""
    if "nearest" not in op.mode:
        raise UnsupportedError(f"{terms.name} has no rule for Resize with mode {op.mode!r}")
    sides = zip(shapes[0][1:], op.size, strict=True)
    return Terms(0, _copies(prod(-(-m // n) + 1 for n, m in sides)))


@terms.register(Interpolation, Fourier)
def _interpolation(op: Affine, shapes: list[Shape], out: Shape) -> Terms:
    """As for `Resize`."""
    raise UnsupportedError(f"{terms.name} has no rule for {op.name}")
