"""Layers spelled out in operations that have bounds; every importer writes them through here.

Each function takes a `Builder` and positions, appends nodes, and returns the position of the result.
`dims` count the batch as 0, which is never among them; negative ones count from the end.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from certus.core import ArgumentError, UnsupportedError
from certus.graph.activation import Clamp, Relu, Within
from certus.graph.affine import BatchNorm, Scale, Shift, Sum
from certus.graph.bilinear import Mul, Product
from certus.graph.builder import Builder
from certus.graph.extremum import Norm, ReduceMax
from certus.graph.recurrent import gru as gru  # noqa: PLC0414
from certus.graph.recurrent import lstm as lstm  # noqa: PLC0414
from certus.graph.recurrent import rnn_relu as rnn_relu  # noqa: PLC0414
from certus.graph.recurrent import rnn_tanh as rnn_tanh  # noqa: PLC0414
from certus.graph.smooth import Abs, Power, Reciprocal
from certus.graph.softmax import LogSumExp, Softmax
from certus.graph.structural import Concat, Expand, Reduce, Reshape, Slice

_SLACK = 1 + 1e-5  # room for rounding at a limit that holds in exact arithmetic
_TREE = 16  # up to so many values a maximum is a tree of pairs


def constant(b: Builder, value: Tensor, source: str = "") -> int:
    """A value [*shape] (or [1, *shape]) that does not depend on the input, as a node."""
    value = value if value.ndim == 0 or value.shape[0] != 1 else value.squeeze(0)
    size = torch.Size(b.shape(0)).numel()
    flat = b.add(Reshape((size,)), 0, source=source)
    one = b.add(Slice(1, 0, 1), flat, source=source)
    zero = b.add(Scale(value.new_zeros(())), one, source=source)
    spread = b.add(Reshape((1,) * value.ndim), zero, source=source)
    spread = b.add(Expand(tuple(value.shape)), spread, source=source)
    return b.add(Shift(value.unsqueeze(0)), spread, source=source)


def align(b: Builder, x: int, ndim: int, source: str = "") -> int:
    """x with dimensions of size one after the batch, so that it has `ndim` dimensions besides it."""
    shape = b.shape(x)
    if len(shape) == ndim:
        return x
    if len(shape) > ndim:
        raise ArgumentError(f"a value of shape {shape} has more than {ndim} dimensions")
    return b.add(Reshape((1,) * (ndim - len(shape)) + shape), x, source=source)


def pair(b: Builder, x: int, y: int, source: str = "") -> tuple[int, int]:
    """x and y with one number of dimensions, as numpy's broadcasting aligns them."""
    ndim = max(len(b.shape(x)), len(b.shape(y)))
    return align(b, x, ndim, source), align(b, y, ndim, source)


def negative(b: Builder, x: int, source: str = "") -> int:
    """-x."""
    return b.add(Scale(b.like.new_tensor(-1.0)), x, source=source)


def multiply(b: Builder, x: int, y: int, source: str = "") -> int:
    """x * y; the square where both are one node, which has tighter bounds."""
    if x == y:
        return b.add(Power(2.0), x, source=source)
    return b.add(Mul(), *pair(b, x, y, source), source=source)


def div(b: Builder, x: int, y: int, source: str = "") -> int:
    """x / y as x * (1 / y)."""
    return multiply(b, x, b.add(Reciprocal(), y, source=source), source)


def maximum(b: Builder, x: int, y: int, source: str = "") -> int:
    """max(x, y) = x + relu(y - x): CROWN bounds the difference, which is tighter than both apart."""
    x, y = pair(b, x, y, source)
    rest = b.add(Relu(), b.add(Sum(-1.0), y, x, source=source), source=source)
    return b.add(Sum(), x, rest, source=source)


def minimum(b: Builder, x: int, y: int, source: str = "") -> int:
    """min(x, y) = x - relu(x - y)."""
    x, y = pair(b, x, y, source)
    rest = b.add(Relu(), b.add(Sum(-1.0), x, y, source=source), source=source)
    return b.add(Sum(-1.0), x, rest, source=source)


def reduce_max(
    b: Builder, x: int, dims: Sequence[int], keepdim: bool = False, source: str = ""
) -> int:
    """Largest value over some dimensions: a tree of `maximum` for few values, else one operation."""
    shape = b.shape(x)
    axes = _axes(dims, len(shape))
    x = b.present(x, axes, source)
    if torch.Size([shape[d - 1] for d in axes]).numel() > _TREE:
        return b.add(ReduceMax(axes, keepdim), x, source=source)
    for dim in axes:
        while (size := b.shape(x)[dim - 1]) > 1:
            half = size // 2
            low = b.add(Slice(dim, 0, half), x, source=source)
            high = b.add(Slice(dim, half, 2 * half), x, source=source)
            best = maximum(b, low, high, source)
            if size % 2:
                rest = b.add(Slice(dim, 2 * half, size), x, source=source)
                best = b.add(Concat(dim), best, rest, source=source)
            x = best
    if keepdim:
        return x
    return b.add(
        Reshape(tuple(s for d, s in enumerate(shape, 1) if d not in axes)), x, source=source
    )


def reduce_min(
    b: Builder, x: int, dims: Sequence[int], keepdim: bool = False, source: str = ""
) -> int:
    """Smallest value over some dimensions: minus the largest of -x."""
    return negative(b, reduce_max(b, negative(b, x, source), dims, keepdim, source), source)


def norm(
    b: Builder, x: int, p: float, dims: Sequence[int], keepdim: bool = False, source: str = ""
) -> int:
    """The p-norm over some dimensions, p one of 1, 2 and infinity."""
    axes = _axes(dims, len(b.shape(x)))
    if p == 1:
        return b.add(Reduce(axes, keepdim), b.add(Abs(), x, source=source), source=source)
    if p == float("inf"):
        return reduce_max(b, b.add(Abs(), x, source=source), axes, keepdim, source)
    return b.add(Norm(p, axes, keepdim), x, source=source)


def square_sum(
    b: Builder, x: int, dims: Sequence[int], keepdim: bool = False, source: str = ""
) -> int:
    """Sum of squares over some dimensions."""
    squares = b.add(Power(2.0), x, source=source)
    return b.add(Reduce(_axes(dims, len(b.shape(x))), keepdim), squares, source=source)


def mean(b: Builder, x: int, dims: Sequence[int], keepdim: bool = True, source: str = "") -> int:
    """Mean over some dimensions."""
    axes = _axes(dims, len(b.shape(x)))
    count = torch.Size([b.shape(x)[d - 1] for d in axes]).numel()
    return b.add(Reduce(axes, keepdim, 1 / count), x, source=source)


def normalize(b: Builder, x: int, dims: Sequence[int], eps: float, source: str = "") -> int:
    """(x - mean) / sqrt(variance + eps) over some dimensions; the variance divides by the count."""
    average = mean(b, x, dims, source=source)
    centred = b.add(Sum(-1.0), x, average, source=source)
    return _unit(b, centred, dims, eps, 1, source)


def layer_norm(
    b: Builder,
    x: int,
    dims: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    source: str = "",
) -> int:
    """torch.nn.LayerNorm over the last dimensions `dims`; weight and bias have their shape."""
    x = normalize(b, x, dims, eps, source)
    if weight is not None:
        x = b.add(Scale(weight), x, source=source)
    return x if bias is None else b.add(Shift(bias), x, source=source)


def rms_norm(
    b: Builder,
    x: int,
    dims: Sequence[int],
    weight: Tensor | None = None,
    eps: float = 1e-5,
    source: str = "",
) -> int:
    """torch.nn.RMSNorm: x / sqrt(mean of squares + eps), times the weight."""
    x = _unit(b, x, dims, eps, 0, source)
    return x if weight is None else b.add(Scale(weight), x, source=source)


def group_norm(
    b: Builder,
    x: int,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    source: str = "",
) -> int:
    """torch.nn.GroupNorm: [C, *space] normalised over the channels of a group and all positions."""
    shape = b.shape(x)
    grouped = b.add(Reshape((groups, torch.Size(shape).numel() // groups)), x, source=source)
    unit = normalize(b, grouped, (2,), eps, source)
    return channelwise(b, b.add(Reshape(shape), unit, source=source), weight, bias, source)


def instance_norm(
    b: Builder,
    x: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    source: str = "",
) -> int:
    """torch.nn.InstanceNorm without running statistics: each channel over its own positions."""
    return group_norm(b, x, b.shape(x)[0], weight, bias, eps, source)


def channelwise(
    b: Builder, x: int, weight: Tensor | None, bias: Tensor | None, source: str = ""
) -> int:
    """x * weight + bias for [C, *space], weight and bias one number a channel, kept live."""
    if weight is None and bias is None:
        return x
    zero = b.like.new_zeros(b.shape(x)[0])
    return b.add(BatchNorm(weight, bias, zero, torch.ones_like(zero), 0.0), x, source=source)


def softmax(b: Builder, x: int, dim: int, source: str = "") -> int:
    """torch.softmax along one dimension."""
    return b.add(Softmax(*_axes((dim,), len(b.shape(x)))), x, source=source)


def log_softmax(b: Builder, x: int, dim: int, source: str = "") -> int:
    """x - logsumexp(x)."""
    (axis,) = _axes((dim,), len(b.shape(x)))
    return b.add(Sum(-1.0), x, b.add(LogSumExp(axis, True), x, source=source), source=source)


def masked(b: Builder, x: int, mask: Tensor | None, source: str = "") -> int:
    """Scores of an attention with its mask: bool (False is left out) or a summand (may be -inf)."""
    if mask is None or bool((mask if mask.dtype == torch.bool else mask == 0).all()):
        return x
    if mask.dtype == torch.bool:
        return where(b, mask, x, b.like.new_tensor(float("-inf")), source)
    return plus(b, x, mask, source)


def plus(b: Builder, x: int, amount: Tensor, source: str = "") -> int:
    """x plus a constant, of which entries may be minus infinity."""
    if bool(torch.isposinf(amount).any() or amount.isnan().any()):
        raise UnsupportedError("a summand with NaN or plus infinity")
    gone = torch.isneginf(amount)
    place = b.add(Shift(amount.masked_fill(gone, 0.0)), x, source=source)
    if not bool(gone.any()):
        return place
    keep = b.add(Scale(~gone), place, source=source)
    return b.without(keep, gone)


def attention(
    b: Builder,
    q: int,
    k: int,
    v: int,
    scale: float | None = None,
    mask: Tensor | None = None,
    source: str = "",
) -> int:
    """softmax(q k^T scale + mask) v over the last two dimensions; scale None: 1 / sqrt(width).

    mask broadcasts against the scores; heads are a dimension in front.
    """
    width = b.shape(q)[-1]
    factor = b.like.new_tensor(width**-0.5 if scale is None else scale)
    q = b.add(Scale(factor), q, source=source)
    scores = b.add(Product(transpose_second=True), q, k, source=source)
    weights = softmax(b, masked(b, scores, mask, source), -1, source)
    return b.add(Product(), weights, v, source=source)


def where(b: Builder, mask: Tensor, x: int | Tensor, y: int | Tensor, source: str = "") -> int:
    """torch.where with a constant condition; x and y are positions or constants, not both constants.

    Entries of minus infinity are kept apart (see `absent`).
    """
    if isinstance(x, Tensor):
        assert not isinstance(y, Tensor), "where needs a value that depends on the input"
        return where(b, ~mask, y, x, source)
    if isinstance(y, Tensor):
        amount = torch.where(mask, torch.zeros_like(y), y)
        kept, gone = _kept(b, mask, x, source)
        return b.without(plus(b, kept, amount, source), gone)
    parts = [_kept(b, m, value, source) for m, value in ((mask, x), (~mask, y))]
    first, second = pair(b, parts[0][0], parts[1][0], source)
    total = b.add(Sum(), first, second, source=source)
    return b.without(total, parts[0][1] | parts[1][1])


def hard_sigmoid(
    b: Builder, x: int, slope: float = 1 / 6, shift: float = 0.5, source: str = ""
) -> int:
    """min(max(slope x + shift, 0), 1)."""
    line = b.add(Scale(b.like.new_tensor(slope)), x, source=source)
    line = b.add(Shift(b.like.new_tensor(shift)), line, source=source)
    return b.add(Clamp(0.0, 1.0), line, source=source)


def _kept(b: Builder, mask: Tensor, x: int, source: str) -> tuple[int, Tensor]:
    """x where the mask is true, else zero, and which entries are minus infinity.

    Refuses a mask that would broadcast over the batch.
    """
    ndim = len(b.shape(x)) + 1
    if mask.ndim > ndim or (mask.ndim == ndim and mask.shape[0] != 1):
        raise ArgumentError(f"a mask {tuple(mask.shape)} does not broadcast on {b.shape(x)}")
    return b.pick(x, mask, source), b.gone(x) & mask


def _unit(b: Builder, x: int, dims: Sequence[int], eps: float, free: int, source: str) -> int:
    """x / sqrt(mean of squares + eps), at most sqrt(count) in size, or sqrt(count - 1) at mean zero.

    free: degrees of freedom that x lacks, 1 where its mean is zero.
    """
    axes = _axes(dims, len(b.shape(x)))
    power = mean(b, b.add(Power(2.0), x, source=source), axes, source=source)
    shifted = b.add(Shift(b.like.new_tensor(eps)), power, source=source)
    unit = b.add(Mul(), x, b.add(Power(-0.5), shifted, source=source), source=source)
    count = torch.Size([b.shape(x)[d - 1] for d in axes]).numel()
    most = _SLACK * math.sqrt(max(count - free, 1))
    return b.add(Within(-most, most), unit, source=source)


def _axes(dims: Sequence[int], ndim: int) -> tuple[int, ...]:
    """Dimensions counted with the batch as 0, in order; refuses the batch."""
    axes = tuple(sorted(d % (ndim + 1) for d in dims))
    if not axes or 0 in axes:
        raise ArgumentError(f"dimensions {tuple(dims)} of {ndim + 1} reach the batch")
    if len(set(axes)) < len(axes):
        raise ArgumentError(f"dimensions {tuple(dims)} name one of {ndim + 1} twice")
    return axes
