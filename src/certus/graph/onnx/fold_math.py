"""Arithmetic, comparisons and shapes on constants, in numpy and in the type that ONNX gives."""

from collections.abc import Callable
from typing import Any

import numpy as np

from certus.graph.onnx.reader import TYPES
from certus.graph.onnx.table import Call, Unsupported, affordable, axis_of, folds
from certus.graph.whole import LIMITS

Array = np.ndarray


@folds("Constant")
def _constant(call: Call) -> Array:
    given = call.node.attributes
    if "value" in given:
        return given["value"]
    for name, kind in (("value_float", "f4"), ("value_int", "i8")):
        if name in given:
            return np.asarray(given[name], dtype=kind)
    for name, kind in (("value_floats", "f4"), ("value_ints", "i8")):
        if name in given:
            return np.asarray(given[name], dtype=kind)
    raise Unsupported("a constant of text or sparse data")


@folds("ConstantOfShape")
def _constant_of_shape(call: Call) -> Array:
    value = call.attribute("value", np.zeros(1, dtype=np.float32))
    return np.full(affordable(call.ints(0)), value.reshape(-1)[0], dtype=value.dtype)


@folds("Shape")
def _shape(call: Call) -> Array:
    return shape_vector(call, call.array(0).shape)


def shape_vector(call: Call, shape: tuple[Any, ...]) -> Array:
    """What Shape returns, cut by its start and end."""
    start, end = int(call.attribute("start", 0)), call.attribute("end")
    plain = all(isinstance(d, int | np.integer) for d in shape)
    return np.array(shape, dtype=np.int64 if plain else object)[start:end]


@folds("Size")
def _size(call: Call) -> Array:
    return np.asarray(call.array(0).size, dtype=np.int64)


@folds("Range")
def _range(call: Call) -> Array:
    first, last, step = (call.array(i) for i in range(3))
    affordable([abs((last.item() - first.item()) / step.item())])
    return np.arange(first.item(), last.item(), step.item(), dtype=first.dtype)


@folds("EyeLike")
def _eye_like(call: Call) -> Array:
    x, k = call.array(0), int(call.attribute("k", 0))
    kind = TYPES[int(call.attribute("dtype"))] if call.attribute("dtype") else x.dtype
    return np.eye(x.shape[0], x.shape[1], k).astype(kind)


@folds("Cast")
def _cast(call: Call) -> Array:
    if call.array(0).dtype == object:
        return call.array(0)  # sizes that depend on the input stay what they are
    kind = TYPES.get(int(call.attribute("to")))
    if kind is None:
        raise Unsupported("a cast to text or to a small float")
    return _converted(call.array(0), kind)


@folds("CastLike")
def _cast_like(call: Call) -> Array:
    return _converted(call.array(0), call.array(1).dtype.name)


def _converted(x: Array, kind: str) -> Array:
    """x in another type; whole numbers wrap around, floats beyond the type have no defined value."""
    if x.dtype.kind == "f" and kind in LIMITS:
        low, top = LIMITS[kind]
        if not bool(((np.trunc(x) >= low) & (x < top)).all()):
            raise Unsupported(f"a constant that {kind} does not hold")
    with np.errstate(over="ignore"):
        return x.astype(kind)


def _divide(x: Array, y: Array) -> Array:
    if x.dtype.kind in "iu":  # ONNX rounds towards zero
        return (np.sign(x) * np.sign(y) * (abs(x) // abs(y))).astype(x.dtype)
    with np.errstate(all="ignore"):
        return x / y


def _power(x: Array, y: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.power(x, y.astype(x.dtype) if x.dtype.kind == "f" else y).astype(x.dtype)


_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": _divide,
    "Pow": _power,
    "Equal": np.equal,
    "Greater": np.greater,
    "Less": np.less,
    "GreaterOrEqual": np.greater_equal,
    "LessOrEqual": np.less_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
    "MatMul": np.matmul,
}
_UNARY: dict[str, Callable[[Array], Array]] = {
    "Neg": np.negative,
    "Abs": np.abs,
    "Sqrt": np.sqrt,
    "Exp": np.exp,
    "Log": np.log,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.round,
    "Sign": np.sign,
    "Not": np.logical_not,
    "Reciprocal": np.reciprocal,
    "Sin": np.sin,
    "Cos": np.cos,
    "Tanh": np.tanh,
    "IsNaN": np.isnan,
    "IsInf": np.isinf,
    "Tan": np.tan,
    "Atan": np.arctan,
}
_MANY: dict[str, Callable[[Array, Array], Array]] = {
    "Min": np.minimum,
    "Max": np.maximum,
    "Sum": np.add,
}
_REDUCE: dict[str, Callable[..., Array]] = {
    "ReduceSum": np.sum,
    "ReduceMean": np.mean,
    "ReduceProd": np.prod,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
}


@folds(*_BINARY)
def _binary(call: Call) -> Array:
    return np.asarray(_BINARY[call.node.op](call.array(0), call.array(1)))


@folds("Mod")
def _modulo(call: Call) -> Array:
    """With the sign of the divisor, or as C's fmod with that of the dividend."""
    return np.asarray(
        (np.fmod if call.attribute("fmod", 0) else np.mod)(call.array(0), call.array(1))
    )


@folds(*_UNARY)
def _unary(call: Call) -> Array:
    x = call.array(0)
    with np.errstate(all="ignore"):
        found = np.asarray(_UNARY[call.node.op](x))
    return found if found.dtype == bool else found.astype(x.dtype)


@folds(*_MANY)
def _many(call: Call) -> Array:
    result = call.array(0)
    for i in range(1, len(call.values)):
        result = _MANY[call.node.op](result, call.array(i))
    return np.asarray(result)


@folds(*_REDUCE)
def _reduce(call: Call) -> Array:
    x, keep = call.array(0), bool(call.attribute("keepdims", 1))
    axes = reduced_axes(call, x.ndim)
    return np.asarray(_REDUCE[call.node.op](x, axis=axes, keepdims=keep)).astype(x.dtype)


def reduced_axes(call: Call, rank: int) -> tuple[int, ...]:
    """The axes of a reduction; all where none are named, unless that means none."""
    axes = call.ints(1, "axes")
    if not axes:
        return () if call.attribute("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted(axis_of(a, rank) for a in axes))


@folds("Where")
def _where(call: Call) -> Array:
    return np.where(*[call.array(i) for i in range(3)])


@folds("ArgMax", "ArgMin")
def _arg_max(call: Call) -> Array:
    x, axis = call.array(0), int(call.attribute("axis", 0))
    find = np.argmax if call.node.op == "ArgMax" else np.argmin
    if call.attribute("select_last_index", 0):
        found = x.shape[axis] - 1 - find(np.flip(x, axis), axis)
    else:
        found = find(x, axis)
    return np.expand_dims(found, axis) if call.attribute("keepdims", 1) else np.asarray(found)


@folds("CumSum")
def _cum_sum(call: Call) -> Array:
    x, axis = call.array(0), int(call.array(1).item())
    if call.attribute("exclusive", 0) or call.attribute("reverse", 0):
        raise Unsupported("an exclusive or reversed running sum of constants")
    return np.cumsum(x, axis, dtype=x.dtype)


@folds("NonZero")
def _non_zero(call: Call) -> Array:
    return np.stack(np.nonzero(call.array(0))).astype(np.int64)


@folds("OneHot")
def _one_hot(call: Call) -> Array:
    x, depth = call.array(0).astype(np.int64), int(call.array(1).reshape(-1)[0])
    off, on = call.array(2)
    axis = int(call.attribute("axis", -1))
    hot = np.where(x < 0, x + depth, x)[..., None] == np.arange(depth)
    return np.moveaxis(np.where(hot, on, off), -1, axis)
