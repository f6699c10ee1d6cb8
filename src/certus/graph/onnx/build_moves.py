"""Operators that move, copy or select values which depend on the input."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from certus.graph import composite, structural
from certus.graph.onnx import shapes
from certus.graph.onnx.build_arithmetic import add, multiply
from certus.graph.onnx.fold import evaluated
from certus.graph.onnx.table import (
    Call,
    Unsupported,
    Value,
    affordable,
    axis_of,
    broadcast,
    builds,
)
from certus.graph.onnx.values import Data, canonical, kind_of


@builds("Reshape")
def _reshape(call: Call) -> Data:
    x = call.data()
    return replace(x, shape=shapes.target_shape(call, size_of(x), x.shape))


@builds("Flatten")
def _flatten(call: Call) -> Data:
    x = call.data()
    rows = int(np.prod(x.shape[: shapes.flatten_axis(call, x.rank)], dtype=np.int64))
    return replace(x, shape=(rows, size_of(x) // rows))


@builds("Squeeze")
def _squeeze(call: Call) -> Data:
    return replace(call.data(), shape=shapes.squeezed(call, call.data().shape))


@builds("Unsqueeze")
def _unsqueeze(call: Call) -> Data:
    return replace(call.data(), shape=shapes.unsqueezed(call, call.data().shape))


def size_of(x: Data) -> int:
    """How many numbers a value holds."""
    return int(np.prod(x.shape, dtype=np.int64))


@builds("Slice")
def _slice(call: Call) -> Data:
    x = call.data()
    parts = shapes.slices(call, x.shape)
    if any(part.step < 0 for part in parts):
        return moved(call)
    for axis, part in enumerate(parts):
        x = cut(call, x, axis, part)
    return x


def cut(call: Call, x: Data, axis: int, part: slice) -> Data:
    """x[part] along one axis."""
    size = x.shape[axis]
    length = len(range(*part.indices(size)))
    if length == size and part.step == 1:
        return x
    if length == 0:
        raise Unsupported("an empty slice")
    position, dims = call.over(x, axis)
    shape = (*x.shape[:axis], length, *x.shape[axis + 1 :])
    op = structural.Slice(dims[0], part.start, part.stop, part.step)
    return call.put(op, position, shape=shape, kind=x.kind)


@builds("Split")
def _split(call: Call) -> list[Value]:
    x = call.data()
    axis, start = axis_of(int(call.attribute("axis", 0)), x.rank), 0
    parts: list[Value] = []
    for size in shapes.split_sizes(call, x.shape[axis]):
        part = slice(start, start + size, 1)
        parts.append(cut(call, x, axis, part) if size else np.zeros(0, np.float32))
        start += size
    return parts


@builds("GatherElements", "GatherND", "Tile", "DepthToSpace", "SpaceToDepth", "ReverseSequence")
def moved(call: Call) -> Data:
    """Any rearrangement: the operator is run on positions, which tells where each value comes from."""
    x = call.data()
    rest = [call.array(i) for i in range(1, len(call.values))]
    return picked(call, x, _places(call, [numbered(x.shape), *rest]))


def numbered(shape: tuple[int, ...], start: int = 0) -> Any:
    """start, start + 1, ... in a shape, as floats, which every operator takes."""
    count = int(np.prod(shape, dtype=np.int64))
    return np.arange(start, start + count, dtype=np.float64).reshape(shape)


def _places(call: Call, values: list[Any]) -> Any:
    """Where the node moves numbered entries."""
    return evaluated(call.node, values, call.opset)[0].astype(np.int64)


def picked(call: Call, x: Data, places: Any) -> Data:
    """The value made of the entries of x at flat places."""
    flat = np.ascontiguousarray(places.reshape(-1))  # torch takes no negative strides
    if places.size == 0:
        raise Unsupported("an empty result")
    if np.array_equal(flat, np.arange(size_of(x))):
        return replace(x, shape=places.shape)
    index = torch.tensor(flat, dtype=torch.int64, device=call.writer.like.device)
    own = places.shape[1:] if places.ndim >= 2 and places.shape[0] == 1 else places.shape or (1,)
    return call.put(structural.Gather(index, own), x.position, shape=places.shape, kind=x.kind)


@builds("Expand")
def _expand(call: Call) -> Data:
    x = call.data()
    return expanded(call, x, broadcast(x.shape, call.ints(1)))


def expanded(call: Call, x: Data, shape: tuple[int, ...]) -> Data:
    """Copies along dimensions of size one and new ones in front."""
    if shape == x.shape or size_of(x) == int(np.prod(shape, dtype=np.int64)):
        return replace(x, shape=shape)
    affordable(shape)
    full = (1,) * (len(shape) - x.rank) + x.shape
    lead = 1 if len(shape) >= 2 and shape[0] == 1 else 0
    op = structural.Expand(shape[lead:])
    return call.put(op, call.at(x, full[lead:]), shape=shape, kind=x.kind)


@builds("Concat")
def _concat(call: Call) -> Data:
    values = [v for v in call.values if np.prod(v.shape, dtype=np.int64)]
    axis = axis_of(int(call.attribute("axis", 0)), len(values[0].shape))
    total = sum(v.shape[axis] for v in values)
    shape = (*values[0].shape[:axis], total, *values[0].shape[axis + 1 :])
    lead = 1 if len(shape) >= 2 and axis > 0 and shape[0] == 1 else 0
    positions = [call.at(as_data(call, v), tuple(v.shape[lead:])) for v in values]
    kinds = {v.kind for v in values if isinstance(v, Data)}
    kind = kinds.pop() if len(kinds) == 1 else "f"
    if len(positions) == 1:
        return Data(positions[0], shape, kind)
    return call.put(structural.Concat(axis + 1 - lead), *positions, shape=shape, kind=kind)


def as_data(call: Call, value: Value) -> Data:
    """A constant as a node of the graph; values that depend on the input as they are."""
    if isinstance(value, Data):
        return value
    array = np.asarray(value)
    tensor = call.tensor(array.reshape(array.shape or (1,)))
    return Data(composite.constant(call.writer, tensor[None]), array.shape, kind_of(array.dtype))


@builds("Pad")
def _pad(call: Call) -> Data:
    x, mode = call.data(), call.attribute("mode", "constant")
    pads = shapes.ordered_pads(call, x.rank)
    if mode != "constant":  # whose value would have to be of the type of the places
        places = [numbered(x.shape), call[1], None, call[3]]
        return picked(call, x, _places(call, places[: max(1, len(call.values))]))
    for axis, (before, after) in enumerate(pads):
        x = cut(call, x, axis, slice(max(0, -before), x.shape[axis] - max(0, -after), 1))
    pads = [(max(0, a), max(0, b)) for a, b in pads]
    padded = [i for i, pair in enumerate(pads) if pair != (0, 0)]
    if not padded:
        return x
    position, dims = call.over(x, *padded)
    lead = dims[0] - padded[0]  # dimension in the graph less the ONNX axis
    last = x.rank - 1 + lead
    widths: list[int] = []
    for dim in range(last, dims[0] - 1, -1):
        widths += pads[dim - lead]
    shape = tuple(d + sum(p) for d, p in zip(x.shape, pads, strict=True))
    value = call.number(2, "value", 0.0) or 0.0
    return call.put(structural.Pad(tuple(widths), value), position, shape=shape, kind=x.kind)


@builds("ScatterND", "ScatterElements", "Scatter")
def _scatter(call: Call) -> Data:
    """Constant places: entries of the old value and of the updates side by side, then selected."""
    if not isinstance(call[1], np.ndarray):
        raise Unsupported("a scatter to places that depend on the input")
    how = call.attribute("reduction", "none")
    if how not in ("none", "add"):
        raise Unsupported(f"a scatter with reduction {how}")
    base, updates = as_data(call, call[0]), as_data(call, call[2])
    old = numbered(base.shape)
    if how == "add":
        return _added(call, base, updates)
    places = _places(call, [old, call[1], numbered(updates.shape, old.size)])
    flat = [call.at(v, (size_of(v),)) for v in (base, updates)]
    total = old.size + size_of(updates)
    joined = call.put(structural.Concat(1), *flat, shape=(total,), kind=base.kind)
    return picked(call, joined, places)


def _added(call: Call, base: Data, updates: Data) -> Data:
    """The old values plus the updates that arrive at their places."""
    numbers = torch.arange(size_of(base)).view(base.shape)
    index = torch.tensor(call.array(1), dtype=torch.int64)
    if call.node.op == "ScatterND":
        places = numbers[tuple(index.movedim(-1, 0))]
    else:
        axis = axis_of(int(call.attribute("axis", 0)), base.rank)
        places = numbers.gather(axis, index % base.shape[axis])
    op = structural.ScatterAdd(places.flatten().to(call.writer.like.device), canonical(base.shape))
    arrived = call.put(op, updates.position, shape=base.shape, kind=base.kind)
    return add(call, base, arrived)


@builds("CumSum")
def _cum_sum(call: Call) -> Data:
    x = call.data()
    position, dims = call.over(x, int(call.array(1).reshape(-1)[0]))
    flags = [bool(call.attribute(name, 0)) for name in ("exclusive", "reverse")]
    return call.put(structural.CumSum(dims[0], *flags), position, shape=x.shape, kind=x.kind)


@builds("Trilu")
def _trilu(call: Call) -> Data:
    (mask,) = evaluated(call.node, [np.ones(call.data().shape), *call.values[1:]], call.opset)
    return multiply(call, call.data(), mask)


@builds("Shape")
def _shape(call: Call) -> Any:
    return shapes.shape_vector(call, call.data().shape)


@builds("Size")
def _size(call: Call) -> Any:
    return np.asarray(size_of(call.data()), dtype=np.int64)


@builds("ConstantOfShape", "Range", "EyeLike")
def _dynamic(call: Call) -> Any:
    if call.node.op == "EyeLike":
        blank = np.zeros(call.data().shape, np.float32)
        return evaluated(call.node, [blank], call.opset)
    raise Unsupported("a shape that depends on the values of the input")
