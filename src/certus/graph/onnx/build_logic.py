"""Casts, comparisons, selections and table look-ups; truth values are the numbers 0 and 1."""

from typing import Any

import numpy as np

from certus.graph import conversion
from certus.graph.affine import Linear, Sum
from certus.graph.extremum import ArgMax
from certus.graph.onnx.build_arithmetic import add, multiply
from certus.graph.onnx.build_elementwise import scaled, shifted
from certus.graph.onnx.build_linear import permuted
from certus.graph.onnx.build_moves import cut, expanded, size_of
from certus.graph.onnx.reader import TYPES
from certus.graph.onnx.table import Call, Unsupported, Value, axis_of, broadcast, builds
from certus.graph.onnx.values import Data, is_whole
from certus.graph.piecewise import Step

_TABLE = 2**22  # entries of a comparison with every row of a table


@builds("Cast")
def _cast(call: Call) -> Data:
    name = TYPES.get(int(call.attribute("to")))
    if name is None:
        raise Unsupported("a cast to text or to a small float")
    return cast(call, call.data(), call.kind(name))


@builds("CastLike")
def _cast_like(call: Call) -> Data:
    like = call[1]
    return cast(call, call.data(), like.kind if isinstance(like, Data) else call.kind(like.dtype))


def cast(call: Call, x: Data, kind: str) -> Data:
    """To whole numbers by truncation inside their type, to truth values by comparison with zero."""
    if kind in (x.kind, "f") or x.kind == "b":
        return Data(x.position, x.shape, kind)
    if kind == "b":
        return Data(conversion.not_zero(call.writer, x.position), x.shape, kind)
    whole = x.position if is_whole(x.kind) else conversion.truncated(call.writer, x.position)
    return Data(conversion.held(call.writer, whole, kind), x.shape, kind)


@builds("Greater", "GreaterOrEqual", "Less", "LessOrEqual")
def _compare(call: Call) -> Data:
    first, second = (call[0], call[1]) if "Greater" in call.node.op else (call[1], call[0])
    difference = add(call, first, second, -1.0)
    return call.same(Step("OrEqual" in call.node.op), difference, "b")


@builds("Equal")
def _equal(call: Call) -> Data:
    return zero(call, add(call, call[0], call[1], -1.0))


def zero(call: Call, x: Data) -> Data:
    """1 where x is zero: [x >= 0] - [x > 0]."""
    reached, passed = call.same(Step(True), x), call.same(Step(), x)
    return call.put(Sum(-1.0), reached.position, passed.position, shape=x.shape, kind="b")


@builds("And")
def _and(call: Call) -> Data:
    return multiply(call, call[0], call[1])


@builds("Or", "Xor")
def _or(call: Call) -> Data:
    a, b = call[0], call[1]
    both = multiply(call, a, b)
    both = both if call.node.op == "Or" else scaled(call, both, 2.0)
    return add(call, add(call, a, b), both, -1.0)


@builds("Where")
def _where(call: Call) -> Data:
    condition, x, y = call.values
    if isinstance(condition, Data):
        return _chosen(call, condition, x, y)
    shape = broadcast(*[v.shape for v in call.values])
    parts = [_kept(call, v, m, shape) for v, m in ((x, condition), (y, ~condition))]
    data = [p for p in parts if isinstance(p, Data)]
    kind = data[0].kind if all(d.kind == data[0].kind for d in data) else "f"
    total = add(call, *parts)
    return Data(total.position, shape, kind)


def _kept(call: Call, value: Value, mask: Any, shape: tuple[int, ...]) -> Value:
    """The value where the mask holds, zero elsewhere; minus infinity stays a constant."""
    if not isinstance(value, Data):
        return np.where(np.broadcast_to(mask, shape), np.broadcast_to(value, shape), 0)
    return multiply(call, expanded(call, value, shape), np.broadcast_to(mask, shape).astype(float))


def _chosen(call: Call, condition: Data, x: Value, y: Value) -> Data:
    """y + condition (x - y)."""
    if not isinstance(x, Data) and not isinstance(y, Data):
        return add(call, multiply(call, condition, np.subtract(x, y)), y)
    return add(call, multiply(call, condition, add(call, x, y, -1.0)), y)


def first_place(call: Call, x: Data, smallest: bool) -> Data:
    """ArgMax (ArgMin): the first place of the largest value, or the last where the node says so."""
    axis, last = (
        axis_of(int(call.attribute("axis", 0)), x.rank),
        call.attribute("select_last_index", 0),
    )
    shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    final = shape if call.attribute("keepdims", 1) else (*shape[:axis], *shape[axis + 1 :])
    x = scaled(call, x, -1.0) if smallest else x
    if x.shape[axis] == 2:
        pair = [cut(call, x, axis, slice(i, i + 1, 1)) for i in range(2)]
        behind = add(call, pair[1], pair[0], -1.0)
        found = call.same(Step(bool(last)), behind, "int64")
        return Data(found.position, final, "int64")
    if last:
        raise Unsupported("the last place of a largest value")
    position, dims = call.over(x, axis)
    return call.put(ArgMax(dims[0], True), position, shape=final, kind="int64")


@builds("OneHot")
def _one_hot(call: Call) -> Data:
    x = call.data()
    depth = int(call.array(1).reshape(-1)[0])
    off, on = (float(v) for v in call.array(2).reshape(-1))
    axis = axis_of(int(call.attribute("axis", -1)), x.rank + 1)
    hot = shifted(call, scaled(call, hits(call, x, depth), on - off), off)
    order = [*range(x.rank)]
    order.insert(axis, x.rank)
    return permuted(call, Data(hot.position, hot.shape, call.kind(call.array(2).dtype)), order)


@builds("Hardmax")
def _hardmax(call: Call) -> Data:
    x = call.data()
    axis = axis_of(int(call.attribute("axis", -1 if call.opset >= 13 else 1)), x.rank)
    if axis != x.rank - 1:
        raise Unsupported("hardmax along an axis that is not the last")
    position, dims = call.over(x, axis)
    place = call.put(ArgMax(dims[0], True), position, shape=x.shape[:-1], kind="int64")
    hot = hits(call, place, x.shape[-1])
    return Data(hot.position, hot.shape, "f")


def hits(call: Call, x: Data, count: int) -> Data:
    """[*, count]: 1 where the whole number x (counted from the end where negative) is the place."""
    if size_of(x) * count > _TABLE:
        raise Unsupported("a table of more entries than can be compared one by one")
    wrapped = from_end(call, x, count)
    places = np.arange(count, dtype=np.float64)
    column = Data(wrapped.position, (*x.shape, 1), x.kind)
    return zero(call, add(call, column, places, -1.0))


def from_end(call: Call, x: Data, size: int) -> Data:
    """x, plus the size where x is negative."""
    below = call.same(Step(), scaled(call, x, -1.0))
    return add(call, x, scaled(call, below, float(size)))


def look_up(call: Call, table: Any, x: Data, axis: int) -> Data:
    """Rows of a constant table at places that depend on the input."""
    axis = axis_of(axis, table.ndim)
    rows = np.moveaxis(table, axis, 0)
    matrix = rows.reshape(rows.shape[0], -1).astype(np.float64)
    hot = hits(call, x, rows.shape[0])
    found = call.put(Linear(call.tensor(matrix.T.copy())), call.at(hot, hot.shape), shape=())
    shape = (*x.shape, *rows.shape[1:])
    result = Data(found.position, shape, call.kind(table.dtype))
    if axis == 0:
        return result
    front = [*range(x.rank, x.rank + axis)]
    rest = [*range(x.rank + axis, len(shape))]
    return permuted(call, result, [*front, *range(x.rank), *rest])


@builds("Compress", "NonZero", "Unique", "NonMaxSuppression")
def _sized_by_values(call: Call) -> Data:
    raise Unsupported("the result's size or order depends on the values of the input")
