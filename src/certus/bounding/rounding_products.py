"""The rounding guard's rules for products, softmax, largest values and norms."""

from torch import Tensor

from certus.bounding.rounding import rules, size
from certus.graph.bilinear import Mul, Product
from certus.graph.extremum import ArgMax, Maximum, Norm, ReduceMax
from certus.graph.op import Shape
from certus.graph.softmax import LogSumExp, Softmax
from certus.relax import Interval, intervals

Errors = list[Tensor]


@rules.register(Mul, Product)
def _product(
    op: Mul | Product, errors: Errors, ranges: list[Interval], shapes: list[Shape], unit: float
) -> Tensor:
    """|x| e_y + e_x (|y| + e_y), and a few units of the sum of |x| |y|."""
    x, y = (size(interval) for interval in ranges)
    passed = op.forward(x, errors[1]) + op.forward(errors[0], y + errors[1])
    return passed + unit * op.forward(x, y)


@rules.register(Maximum, ReduceMax)
def _largest(
    op: Maximum | ReduceMax,
    errors: Errors,
    ranges: list[Interval],
    shapes: list[Shape],
    unit: float,
) -> Tensor:
    """The largest error; choosing does not round."""
    return op.forward(*errors)


@rules.register(LogSumExp)
def _log_sum_exp(
    op: LogSumExp, errors: Errors, ranges: list[Interval], shapes: list[Shape], unit: float
) -> Tensor:
    """The largest error; the sum of exponentials is relative to its largest, at least one."""
    low, high = intervals[LogSumExp](op, ranges[0])
    return errors[0].amax(op.dim, keepdim=op.keepdim) + unit * (1 + size((low, high)))


@rules.register(Softmax)
def _softmax(
    op: Softmax, errors: Errors, ranges: list[Interval], shapes: list[Shape], unit: float
) -> Tensor:
    """The Jacobian p_i (1 - p_i), -p_i p_j at its largest in reach, times the errors.

    x_i - max x rounds by a unit of itself, which counts as an error of x_i.
    """
    low, high = ranges[0]
    spread = high.amax(op.dim, keepdim=True) - low
    own = errors[0] + unit * spread
    low, high = intervals[Softmax](op, (low - own, high + own))
    passed = (high * own).sum(op.dim, keepdim=True) - high * own
    return high * ((1 - low) * own + passed) + unit * high


@rules.register(Norm)
def _norm(
    op: Norm, errors: Errors, ranges: list[Interval], shapes: list[Shape], unit: float
) -> Tensor:
    """The norm of the errors (triangle inequality), and a few units of the value."""
    return op.forward(errors[0]) + unit * size(intervals[Norm](op, ranges[0]))


@rules.register(ArgMax)
def _arg_max(
    op: ArgMax, errors: Errors, ranges: list[Interval], shapes: list[Shape], unit: float
) -> Tensor:
    """All positions that can win with the errors; none where it is one."""
    low, high = intervals[ArgMax](op, (ranges[0][0] - errors[0], ranges[0][1] + errors[0]))
    return high - low
