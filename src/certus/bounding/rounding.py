"""How far floating-point evaluation may stray from exact arithmetic: a guard for decisions."""

import torch
from torch import Tensor

from certus.bounding.engine import engine_of
from certus.bounding.evaluation import local_error, size
from certus.bounding.precision import refuse_autocast
from certus.core import Rules
from certus.graph import Graph
from certus.graph.activation import MaxPool
from certus.graph.bilinear import Mul, Product
from certus.graph.extremum import ArgMax, Maximum, Norm, ReduceMax, Sorted
from certus.graph.op import Affine, Elementwise
from certus.graph.softmax import LogSumExp, MaskedSoftmax, Softmax
from certus.relax import Interval
from certus.relax import intervals as ranges_of
from certus.relax.masked import without

Errors = list[Tensor]
# (op, errors of the inputs, ranges of the inputs) -> what of them arrives at the output
passed = Rules("the rounding guard")

_TWICE = 2.0  # the model's evaluation, and that of the bounds that it is compared with


def rounding_guard(graph: Graph, intervals: dict[int, Interval], dtype: torch.dtype) -> Tensor:
    """Per output [B, *out]: the rounding error that is allowed for in the network's value.

    A running error: every operation adds what one evaluation of it may be off by (`evaluation.py`: sums
    by Higham's gamma_n, functions by a measured table), and passes on the errors of its inputs through
    absolute weights, so that cancellation (a BatchNorm that subtracts large means, a bias that undoes
    another) is seen. intervals hold the range of every node; dtype is what the network runs in. In deep
    networks absolute weights say much more than is lost; `guarded.py` weighs every error by what
    arrives of it.
    """
    refuse_autocast(intervals[0][0].device)
    engine, nothing = engine_of(graph, dtype), torch.zeros_like(intervals[0][0])
    errors, known = {0: nothing}, dict(intervals)
    for position, node in enumerate(graph.nodes[1:], start=1):
        own, ranges = [errors[i] for i in node.inputs], [known[i] for i in node.inputs]
        if position not in known:  # a node that a method has fused with the next
            known[position] = ranges_of[type(node.op)](node.op, *ranges)
        wide = [(low - e, high + e) for (low, high), e in zip(ranges, own, strict=True)]
        found: Tensor = passed[type(node.op)](node.op, own, ranges)
        fresh = local_error(graph, node, wide, engine)
        errors[position] = found if fresh is None else found + _TWICE * fresh
    return errors[graph.output]


@passed.register(Affine)
def _affine(op: Affine, errors: Errors, ranges: list[Interval]) -> Tensor:
    """|W| e."""
    return op.magnitude(*errors)


@passed.register(Elementwise)
def _elementwise(op: Elementwise, errors: Errors, ranges: list[Interval]) -> Tensor:
    """The steepest slope in reach, and what computing a line with that slope may lose."""
    lower, upper = ranges[0][0] - errors[0], ranges[0][1] + errors[0]
    steepest = size(op.slopes(lower, upper))
    # 0 * inf: a jump in reach of which nothing is lost; NaN would prove nothing where it need not
    moved = torch.where(errors[0] == 0, errors[0], steepest * errors[0])
    lines = 4 * torch.finfo(lower.dtype).eps * size(op.image(lower, upper))
    return moved + lines


@passed.register(MaxPool)
def _max_pool(op: MaxPool, errors: Errors, ranges: list[Interval]) -> Tensor:
    """The largest error of a window."""
    return op.forward(errors[0])


@passed.register(Mul, Product)
def _product(op: Mul | Product, errors: Errors, ranges: list[Interval]) -> Tensor:
    """|x| e_y + e_x (|y| + e_y)."""
    x, y = (size(interval) for interval in ranges)
    return op.forward(x, errors[1]) + op.forward(errors[0], y + errors[1])


@passed.register(Maximum, ReduceMax)
def _largest(op: Maximum | ReduceMax, errors: Errors, ranges: list[Interval]) -> Tensor:
    """The largest error."""
    return op.forward(*errors)


@passed.register(Sorted)
def _sorted(op: Sorted, errors: Errors, ranges: list[Interval]) -> Tensor:
    """The largest error: no order statistic moves by more."""
    return errors[0].amax(op.dim, keepdim=True).expand_as(errors[0])


@passed.register(LogSumExp)
def _log_sum_exp(op: LogSumExp, errors: Errors, ranges: list[Interval]) -> Tensor:
    """The largest error: slopes are shares of one."""
    return errors[0].amax(op.dim, keepdim=op.keepdim)


@passed.register(Softmax)
def _softmax(op: Softmax, errors: Errors, ranges: list[Interval]) -> Tensor:
    """The Jacobian p_i (1 - p_i), -p_i p_j at its largest in reach, times the errors."""
    low, high = ranges[0]
    low, high = ranges_of[Softmax](op, (low - errors[0], high + errors[0]))
    others = (high * errors[0]).sum(op.dim, keepdim=True) - high * errors[0]
    return high * ((1 - low) * errors[0] + others)


@passed.register(MaskedSoftmax)
def _masked_softmax(op: MaskedSoftmax, errors: Errors, ranges: list[Interval]) -> Tensor:
    """That of the softmax over the rest; errors of what is left out do not count."""
    own = errors[0].masked_fill(~op.keep, 0.0)
    return _softmax(Softmax(op.dim), [own], [without(op, ranges[0])])


@passed.register(Norm)
def _norm(op: Norm, errors: Errors, ranges: list[Interval]) -> Tensor:
    """The norm of the errors (triangle inequality)."""
    return op.forward(errors[0])


@passed.register(ArgMax)
def _arg_max(op: ArgMax, errors: Errors, ranges: list[Interval]) -> Tensor:
    """All positions that can win with the errors; none where it is one."""
    low, high = ranges_of[ArgMax](op, (ranges[0][0] - errors[0], ranges[0][1] + errors[0]))
    return high - low
