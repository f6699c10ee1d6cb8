"""What one evaluation of an operation may be off by, in the engine that computes the original.

Sums and products follow Higham 2002, section 3.1: whatever the order, n roundings are off by at most gamma_n
of the sum of absolute terms. Nothing less is true: convolutions and average pooling of real engines add
their terms one by one. Functions of one value are charged by a table that was measured (`make errors`).
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from certus.bounding.precision import precisions
from certus.bounding.terms import terms
from certus.core import Rules, UnsupportedError
from certus.graph import Graph, gated, smooth
from certus.graph.activation import Clamp, MaxPool, Relu, Within
from certus.graph.bilinear import Mul, Product
from certus.graph.extremum import ArgMax, Maximum, Norm, ReduceMax
from certus.graph.graph import Node
from certus.graph.onnx.runtime import OnnxModel, Unchecked
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

TABLE = Path(__file__).with_name("errors.toml")
# times the measured errors of functions: on other processors GELU was seen four times as far off
_SAFETY = 8.0
# roundings beside those of a sum: of weights that an engine joins, of factors, of the result
_EXTRA = 8
# smallest normal numbers that a function may lose, as where an exponential overflows inside
_UNDERFLOW = 256.0
_LARGEST = 0.1  # of n u; beyond it nothing is known
_ROUNDED = 0.5  # units that a result in the dtype is off by, also where what it was compared with was rounded
_FAR = 1e5  # arguments of sines beyond it were not measured
_FACTORS = {"tf32": 2.0**-11, "bf16": 2.0**-8}  # of the factors of a product, in reduced precision

# (op, ranges of the inputs, shapes of the inputs, shape of the output, engine) -> error [B, *out]
evaluation = Rules("the rounding guard")


@dataclass(frozen=True)
class Engine:
    """An evaluation's arithmetic: torch or onnxruntime, the dtype, and the error of products' factors.

    factors: relative, 0 where products take their factors as they are.
    """

    name: str
    dtype: torch.dtype
    factors: float = 0.0

    @property
    def unit(self) -> float:
        """u, the largest relative error of one rounding to nearest."""
        return torch.finfo(self.dtype).eps / 2

    def gamma(self, roundings: int) -> float:
        """n u / (1 - n u), infinite where n u exceeds a tenth."""
        size = roundings * self.unit
        return size / (1 - size) if size <= _LARGEST else float("inf")

    def sums(self, terms: int) -> float:
        """Error of a sum of so many products, relative to its absolute terms."""
        return self.gamma(terms + _EXTRA) + 2.5 * self.factors

    def function(self, op: Elementwise) -> tuple[float, float]:
        """(relative, absolute) error of a function, with the factor of safety."""
        relative, absolute = _row(self.name, str(self.dtype).removeprefix("torch."), key(op))
        each, lost = _SAFETY * 2 * self.unit, _UNDERFLOW * torch.finfo(self.dtype).tiny
        return each * relative, each * absolute * amplitude(op) + lost


def engine_of(graph: Graph, dtype: torch.dtype) -> Engine:
    """The engine of a graph's original, with the settings for products that hold now."""
    if isinstance(graph.original, OnnxModel | Unchecked):
        return Engine("onnxruntime", dtype)
    factors = max((_FACTORS.get(way, 0.0) for way in precisions(graph.device)), default=0.0)
    return Engine("torch", dtype, factors if dtype == torch.float32 else 0.0)


def key(op: Op) -> str:
    """The operation's row in the table."""
    return "GeluTanh" if isinstance(op, gated.Gelu) and op.tanh else op.name


def amplitude(op: Op) -> float:
    """What the absolute error of a function grows with."""
    if isinstance(op, smooth.Elu):
        return op.scale * max(op.alpha, 1.0)
    if isinstance(op, smooth.Celu):
        return max(op.alpha, 1.0)
    return max(1.0, 1 / op.beta) if isinstance(op, smooth.Softplus) else 1.0


@cache
def _rows() -> dict[str, Any]:
    return tomllib.loads(TABLE.read_text())


@cache
def _row(engine: str, dtype: str, name: str) -> tuple[float, float]:
    """The measured row; onnxruntime's covers torch's too, in which its bounds are computed.

    A type that was not measured rounds the values of float32.
    """
    known, engines = _rows(), ["torch", "onnxruntime"] if engine == "onnxruntime" else ["torch"]
    kind = dtype if dtype in known["torch"] else "float32"
    rows = [known[e][kind][name] for e in engines if name in known[e][kind]]
    if not rows:
        raise UnsupportedError(
            f"{evaluation.name} has no measured error of {name}; run `make errors`"
        )
    relative = max(_ROUNDED, *(row[0] for row in rows))
    return relative + (kind != dtype), max(row[1] for row in rows)


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
    return rate * found + torch.finfo(engine.dtype).tiny * (1 + rate / engine.unit)


@evaluation.register(Resize)
def _resize(
    op: Resize, ranges: list[Interval], shapes: list[Shape], out: Shape, engine: Engine
) -> Tensor | None:
    """Copies; the weights of an interpolation are off by a few units of the largest coordinate."""
    if "nearest" in op.mode:
        return None
    return _sums(op, ranges, shapes, engine.sums(32 * max(*out, *shapes[0])), engine)


@evaluation.register(Relu, Abs, Jumps, Fits, MaxPool, Maximum, ReduceMax, ArgMax)
def _chosen(
    op: Op, ranges: list[Interval], shapes: list[Shape], out: Shape, engine: Engine
) -> Tensor | None:
    """None: the result is one of the inputs, or a small integer."""
    return None


@evaluation.register(Clamp)
def _clamp(
    op: Clamp, ranges: list[Interval], shapes: list[Shape], out: Shape, engine: Engine
) -> Tensor | None:
    """Limits that the dtype cannot hold are rounded."""
    limits = [limit for limit in (op.low, op.high) if abs(limit) != float("inf")]
    held = torch.tensor(limits, dtype=engine.dtype).double().tolist()
    if held == limits:
        return None
    return torch.full_like(ranges[0][0], 2 * engine.unit * max(abs(limit) for limit in limits))


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
    """By the table, and the jump where rounding of beta x may choose the side of the switch."""
    found, near = _function(op, ranges, shapes, out, engine), 4 * engine.unit * size(ranges[0])
    switch = op.switches(ranges[0][0] - near, ranges[0][1] + near)
    return torch.where(switch, found + op.jump, found)


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
    return (
        engine.gamma(_EXTRA) * op.forward(*map(size, ranges)) + 2 * torch.finfo(engine.dtype).tiny
    )


@evaluation.register(Product)
def _product(
    op: Product, ranges: list[Interval], shapes: list[Shape], out: Shape, engine: Engine
) -> Tensor:
    """gamma_n |x| |y|."""
    count = shapes[0][-1]
    found = engine.sums(count) * op.forward(*map(size, ranges))
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
    lost = (count * torch.finfo(engine.dtype).tiny) ** 0.5
    return engine.sums(count) * value + lost
