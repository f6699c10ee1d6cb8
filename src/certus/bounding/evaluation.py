"""What one evaluation of an operation may be off by, in the engine that computes the original."""

from math import isfinite, log

import torch
from torch import Tensor

from certus.bounding.engine import Engine
from certus.bounding.terms import terms
from certus.core import Rules
from certus.graph import Graph
from certus.graph.activation import Clamp, MaxPool, Relu, Within
from certus.graph.affine import Fourier, Interpolation
from certus.graph.bilinear import Mul, Product
from certus.graph.extremum import ArgMax, Maximum, Norm, ReduceMax, Sorted
from certus.graph.graph import Node
from certus.graph.op import Affine, Elementwise, Op, Shape
from certus.graph.periodic import Tan, Wave
from certus.graph.piecewise import Abs, Jumps
from certus.graph.powers import Power
from certus.graph.smooth import Softplus
from certus.graph.softmax import LogSumExp, MaskedSoftmax, Softmax
from certus.graph.structural import Resize
from certus.graph.whole import Fits, FloorDivide
from certus.relax import Interval, intervals
from certus.relax.masked import without

_FAR = 1e5  # arguments of sines beyond it were not measured

# (op, ranges of the inputs, shapes of the inputs, shape of the output, engine) -> error [B, *out]
evaluation = Rules("the rounding guard")


def size(interval: Interval) -> Tensor:
    """The largest absolute value."""
    return torch.maximum(interval[0].abs(), interval[1].abs())


def local_error(graph: Graph, node: Node, ranges: list[Interval], engine: Engine) -> Tensor | None:
    """[B, *shape]: how far the engine's value of a node may lie from the exact one on its own inputs.

    ranges hold the values that the inputs take in an evaluation. None stands for zero.
    """
    rule = evaluation[type(node.op)]
    found: Tensor | None = rule(node.op, ranges, graph.shapes(node), node.shape, engine)
    return found


@evaluation.register(Affine)
def _affine(
    op: Affine, ranges: list[Interval], shapes: list[Shape], out: Shape, engine: Engine
) -> Tensor | None:
    """gamma_n (|W| |x| + |b|), n the terms of a sum."""
    count = terms[type(op)](op, shapes, out).forward
    return None if count == 0 else _sums(op, ranges, shapes, engine.sums(count), engine)


def _sums(
    op: Affine, ranges: list[Interval], shapes: list[Shape], rate: float, engine: Engine
) -> Tensor:
    found = op.magnitude(*[size(interval) for interval in ranges])
    offset = op.offset_terms(shapes, found)  # terms of a BatchNorm's own offset may cancel
    if offset is not None:
        found = found + offset
    lost = torch.finfo(engine.dtype).tiny * (1 + rate / engine.unit)
    return within(found, engine) * rate + lost


def within(terms: Tensor, engine: Engine) -> Tensor:
    """Absolute terms as they are, infinite where a sum of some of them may overflow."""
    return torch.where(terms <= torch.finfo(engine.dtype).max / 8, terms, float("inf"))


@evaluation.register(Resize, Interpolation, Fourier)
def _interpolation(
    op: Resize | Interpolation | Fourier,
    ranges: list[Interval],
    shapes: list[Shape],
    out: Shape,
    engine: Engine,
) -> Tensor | None:
    """As a sum over all places at most, and what own weights or steps blur; copies err nowhere."""
    drift = op.drift(size(ranges[0]))
    if drift is None:
        return None
    found = _sums(op, ranges, shapes, engine.sums(max(*out, *shapes[0])), engine)
    return found + 32 * engine.unit * drift


@evaluation.register(Relu, Abs, Jumps, Fits, MaxPool, Maximum, ReduceMax, Sorted, ArgMax)
def _chosen(
    op: Op, ranges: list[Interval], shapes: list[Shape], out: Shape, engine: Engine
) -> Tensor | None:
    """None: the result is one of the inputs, or a small integer."""
    return None


@evaluation.register(Clamp)
def _clamp(
    op: Clamp, ranges: list[Interval], shapes: list[Shape], out: Shape, engine: Engine
) -> Tensor | None:
    """That of the limits in reach."""
    return limit_error(op, ranges[0], engine.dtype)


def limit_error(op: Clamp, reach: Interval, dtype: torch.dtype) -> Tensor | None:
    """How far limits that the dtype rounds may move values; a limit out of reach moves none."""
    found = None
    for limit, sign, end in ((op.low, 1.0, reach[0]), (op.high, -1.0, -reach[1])):
        if not isfinite(limit) or float(torch.tensor(limit, dtype=dtype)) == limit:
            continue
        error = torch.finfo(dtype).eps * abs(limit) + torch.finfo(dtype).tiny
        away = end > sign * limit + error  # false for NaN
        own = torch.full_like(end, error).masked_fill(away, 0.0)
        found = own if found is None else torch.maximum(found, own)
    return found


@evaluation.register(Within)
def _within(
    op: Within, ranges: list[Interval], shapes: list[Shape], out: Shape, engine: Engine
) -> Tensor:
    """An identity whose promise holds up to rounding: of a norm over at most limit^2 values, or of a gate."""
    limit = max(abs(op.low), abs(op.high))
    return torch.full_like(ranges[0][0], engine.sums(32 + int(limit**2)) * limit)


@evaluation.register(Elementwise)
def _function(
    op: Elementwise, ranges: list[Interval], shapes: list[Shape], out: Shape, engine: Engine
) -> Tensor:
    """By the table."""
    relative, absolute = engine.function(op)
    value = size(op.image(*ranges[0]))
    return relative * value + absolute


@evaluation.register(Softplus)
def _softplus(
    op: Softplus, ranges: list[Interval], shapes: list[Shape], out: Shape, engine: Engine
) -> Tensor:
    """By the table; the rounding of beta x, which exp carries on; the jump where it may choose the side.

    Before a late switch exp overflows in between, though the values at both ends are finite.
    """
    low, high = ranges[0]
    found, place = _function(op, ranges, shapes, out, engine), size(ranges[0])
    if op.beta != 1:
        found = found + 2 * engine.unit * op.beta * place * size(op.image(low, high))
    near = 4 * engine.unit * place
    found = torch.where(op.switches(low - near, high + near), found + op.jump, found)
    start = log(torch.finfo(engine.dtype).max) - 1
    late = (op.threshold > start) & (op.beta * high > start) & (op.beta * low <= op.threshold)
    return torch.where(late & isfinite(op.threshold), float("inf"), found)


@evaluation.register(Power)
def _power(
    op: Power, ranges: list[Interval], shapes: list[Shape], out: Shape, engine: Engine
) -> Tensor:
    """By the table; an exponent that the dtype cannot hold errs by |p| u |ln x| of the value, too."""
    found = _function(op, ranges, shapes, out, engine)
    if float(torch.tensor(op.exponent, dtype=engine.dtype)) == op.exponent:
        return found
    low, high = ranges[0]
    ends = torch.maximum(high.log().clamp(min=0), -low.log() if op.exponent < 0 else 0 * low)
    value = size(op.image(low, high))
    return found + 2 * engine.unit * (
        1 + abs(op.exponent) * ends * value
    )  # x^p |ln x| < 1/p below 1


@evaluation.register(FloorDivide)
def _floor_divide(
    op: FloorDivide, ranges: list[Interval], shapes: list[Shape], out: Shape, engine: Engine
) -> Tensor:
    """None, as long as whole numbers of this size are apart in the engine's dtype."""
    apart = size(op.image(*ranges[0])) * torch.finfo(engine.dtype).eps < 0.25
    return torch.where(apart, 0.0, float("inf"))


@evaluation.register(Wave, Tan)
def _periodic(
    op: Wave | Tan, ranges: list[Interval], shapes: list[Shape], out: Shape, engine: Engine
) -> Tensor:
    """By the table; far arguments were not measured, so nothing is known there."""
    near = _function(op, ranges, shapes, out, engine)
    return torch.where(size(ranges[0]) <= _FAR, near, float("inf"))


@evaluation.register(Mul)
def _mul(
    op: Mul, ranges: list[Interval], shapes: list[Shape], out: Shape, engine: Engine
) -> Tensor:
    """One rounding, and those of an engine that joins the product with what comes before."""
    return engine.sums(0) * op.forward(*map(size, ranges)) + 2 * torch.finfo(engine.dtype).tiny


@evaluation.register(Product)
def _product(
    op: Product, ranges: list[Interval], shapes: list[Shape], out: Shape, engine: Engine
) -> Tensor:
    """gamma_n |x| |y|."""
    count = shapes[0][-1]
    found = engine.sums(count) * within(op.forward(*map(size, ranges)), engine)
    return found + count * torch.finfo(engine.dtype).tiny


@evaluation.register(LogSumExp)
def _log_sum_exp(
    op: LogSumExp, ranges: list[Interval], shapes: list[Shape], out: Shape, engine: Engine
) -> Tensor:
    """x_i - max x rounds, weighed by its share; the sum of exponentials; the logarithm and the sum."""
    low, high = ranges[0]
    spread = (high.amax(op.dim, keepdim=op.keepdim) - low.amin(op.dim, keepdim=op.keepdim)).clamp(
        max=_deep(engine)
    )
    value = size(intervals[LogSumExp](op, ranges[0]))
    return engine.sums(low.shape[op.dim]) * (2 + spread + value) + 16 * engine.unit


@evaluation.register(Softmax)
def _softmax(
    op: Softmax, ranges: list[Interval], shapes: list[Shape], out: Shape, engine: Engine
) -> Tensor:
    """Relative to the value: x_i - max x rounds by a unit of itself, exponentials and their sum by gamma_n.

    Where the exponent is so low that exp underflows, the value is below the smallest normal number.
    """
    low, high = ranges[0]
    spread = (high.amax(op.dim, keepdim=True) - low).clamp(max=_deep(engine))
    value = intervals[Softmax](op, ranges[0])[1]
    rate = engine.sums(low.shape[op.dim] + 16) + 4 * engine.unit * spread
    return rate * value + 4 * torch.finfo(engine.dtype).tiny


@evaluation.register(MaskedSoftmax)
def _masked_softmax(
    op: MaskedSoftmax, ranges: list[Interval], shapes: list[Shape], out: Shape, engine: Engine
) -> Tensor:
    """That of the softmax over the rest."""
    kept = without(op, ranges[0])
    return _softmax(Softmax(op.dim), [kept], shapes, out, engine)


def _deep(engine: Engine) -> float:
    """The exponent below which exp underflows."""
    return -float(torch.tensor(torch.finfo(engine.dtype).tiny, dtype=torch.float64).log()) + 20


@evaluation.register(Norm)
def _norm(
    op: Norm, ranges: list[Interval], shapes: list[Shape], out: Shape, engine: Engine
) -> Tensor | None:
    """gamma_n of the value, half of it under a root; what is lost to underflow of squares."""
    if op.p == float("inf"):
        return None
    count = -(-torch.Size(shapes[0]).numel() // max(1, torch.Size(out).numel()))
    value = size(intervals[Norm](op, ranges[0]))
    squares = within(value.square() if op.p == 2 else value, engine)
    value = torch.where(squares.isinf(), float("inf"), value)
    lost = (count * torch.finfo(engine.dtype).tiny) ** 0.5
    return engine.sums(count) * value + lost
