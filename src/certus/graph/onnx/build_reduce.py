"""Sums, means, extrema and norms over axes."""

from collections.abc import Callable

import numpy as np

from certus.graph import composite
from certus.graph.extremum import Sorted
from certus.graph.onnx.build_logic import first_place
from certus.graph.onnx.build_moves import cut, size_of
from certus.graph.onnx.shapes import reduced_axes
from certus.graph.onnx.table import Call, Unsupported, axis_of, builds
from certus.graph.onnx.values import Data
from certus.graph.powers import Exp, Log
from certus.graph.softmax import LogSumExp
from certus.graph.structural import Flip, Reduce

# (position, dims, number of values that become one) -> position
Write = Callable[[int, tuple[int, ...], int], int]


@builds("ReduceSum", "ReduceMean")
def _sum(call: Call) -> Data:
    mean = call.node.op == "ReduceMean"
    return _reduced(
        call,
        call.data(),
        lambda position, dims, count: call.writer.add(
            Reduce(dims, True, 1 / count if mean else 1.0), position
        ),
    )


@builds("TopK")
def _top(call: Call) -> list[Data]:
    """The values; their places depend on the input."""
    x, count = call.data(), call.ints(1, "k")[0]
    axis = axis_of(int(call.attribute("axis", -1)), x.rank)
    if not call.attribute("sorted", 1):
        raise Unsupported("largest values in no order")
    position, dims = call.over(x, axis)
    found = call.put(Sorted(dims[0]), position, shape=x.shape, kind=x.kind)
    if call.attribute("largest", 1):
        found = call.put(Flip(dims), found.position, shape=x.shape, kind=x.kind)
    return [cut(call, found, axis, slice(0, count, 1))]


@builds("ReduceMax", "ReduceMin")
def _extreme(call: Call) -> Data:
    reduce = composite.reduce_max if call.node.op == "ReduceMax" else composite.reduce_min
    return _reduced(
        call, call.data(), lambda position, dims, _: reduce(call.writer, position, dims, True)
    )


@builds("ReduceL1", "ReduceL2")
def _norm(call: Call) -> Data:
    p = 1.0 if call.node.op == "ReduceL1" else 2.0
    return _reduced(
        call,
        call.data(),
        lambda position, dims, _: composite.norm(call.writer, position, p, dims, True),
    )


@builds("ReduceSumSquare")
def _squares(call: Call) -> Data:
    return _reduced(
        call,
        call.data(),
        lambda position, dims, _: composite.square_sum(call.writer, position, dims, True),
    )


@builds("ReduceLogSum")
def _log_sum(call: Call) -> Data:
    total = _reduced(
        call, call.data(), lambda position, dims, _: call.writer.add(Reduce(dims, True), position)
    )
    return call.same(Log(), total)


@builds("ReduceLogSumExp")
def _log_sum_exp(call: Call) -> Data:
    x = call.data()
    real = [a for a in reduced_axes(call, x.rank) if x.shape[a] != 1]
    if len(real) <= 1:
        return _reduced(
            call, x, lambda position, dims, _: call.writer.add(LogSumExp(dims[0], True), position)
        )
    if all(x.shape[a] == 1 for a in range(x.rank) if a not in real):  # over everything
        flat = call.writer.view(x.position, (size_of(x),))
        return Data(call.writer.add(LogSumExp(1, True), flat), _left(call, x.shape))
    exponential = call.same(Exp(), x)
    summed = _reduced(
        call, exponential, lambda position, dims, _: call.writer.add(Reduce(dims, True), position)
    )
    return call.same(Log(), summed)


def _left(call: Call, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape after a reduction."""
    named = reduced_axes(call, len(shape))
    keep = bool(call.attribute("keepdims", 1))
    return tuple(1 if i in named else d for i, d in enumerate(shape) if keep or i not in named)


def _reduced(call: Call, x: Data, write: Write) -> Data:
    """Write a reduction over the axes that have more than one entry."""
    axes = reduced_axes(call, x.rank)
    real = [a for a in axes if x.shape[a] != 1]
    shape = _left(call, x.shape)
    if not real and call.node.op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"):
        return Data(x.position, shape, x.kind)
    position, dims = call.over(x, *(real or axes[:1] or (axis_of(-1, x.rank),)))
    count = int(np.prod([x.shape[a] for a in real], dtype=np.int64))
    kind = "f" if call.node.op == "ReduceMean" else x.kind
    return Data(write(position, dims, count), shape, kind)


@builds("ArgMax", "ArgMin")
def _arg_max(call: Call) -> Data:
    return first_place(call, call.data(), call.node.op == "ArgMin")
