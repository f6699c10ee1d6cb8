"""Constants whose extent depends on the input: slices of constants at places that the input gives.

Exporters write `mask[:, a : a + 3] = 0` as slices of ranges, expanded to a grid of places that ScatterND
overwrites. The grid is known except for its extent. Here an axis of dynamic extent is kept in full,
together with a truth value for every entry: whether it exists. Everything else stays a constant, and
ScatterND writes with truth values in place of a grid, which is exact.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from certus.graph.onnx.build_arithmetic import add, multiply
from certus.graph.onnx.build_logic import from_end
from certus.graph.onnx.build_moves import as_data, expanded, picked
from certus.graph.onnx.shapes import shape_vector, slices, unsqueezed
from certus.graph.onnx.table import Call, Unsupported, Value, axis_of
from certus.graph.onnx.values import Data, is_whole
from certus.graph.piecewise import Step


@dataclass(frozen=True)
class Extent:
    """The number of entries i of 0 .. size - 1 with start <= i < stop, both values of the network."""

    size: int
    start: Data
    stop: Data


@dataclass(frozen=True)
class Ragged:
    """A constant in full, and the axes of which only some entries exist."""

    array: np.ndarray
    extents: dict[int, Extent]

    @property
    def shape(self) -> tuple[Any, ...]:
        """Sizes of the axes; an Extent where it depends on the input."""
        return tuple(self.extents.get(i, d) for i, d in enumerate(self.array.shape))


def applies(call: Call) -> bool:
    """Whether a node is about constants of dynamic extent."""
    if any(isinstance(v, Ragged) or _has_extent(v) for v in call.values):
        return True
    places = call.node.op == "Slice" and any(isinstance(v, Data) for v in call.values[1:])
    return places and not isinstance(call[0], Data)


def build(call: Call) -> Value:
    """The result of a node for which `applies` holds."""
    rules: dict[str, Any] = {
        "Slice": _slice,
        "Shape": _shape,
        "Unsqueeze": _unsqueeze,
        "Reshape": _reshape,
        "Expand": _expand,
        "ConstantOfShape": _filled,
        "Concat": _concat,
        "ScatterND": _scatter,
        "Add": _elementwise,
        "Sub": _elementwise,
        "Mul": _elementwise,
        "Equal": _vector,
        "Where": _vector,
        "Cast": _vector,
        "Gather": _vector,
    }
    if call.node.op not in rules:
        raise Unsupported("a constant whose extent depends on the input")
    return rules[call.node.op](call)


def _has_extent(value: Value) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == object


def _slice(call: Call) -> Value:
    """A slice of a constant; its start and end may depend on the input."""
    source = call[0] if isinstance(call[0], Ragged) else Ragged(call.array(0), {})
    if not isinstance(call[1], Data) and not isinstance(call[2], Data):
        if source.extents:
            raise Unsupported("a slice of a constant whose extent depends on the input")
        return source.array[slices(call, source.array.shape)]
    axes, steps = call.ints(3, default=[0]), call.ints(4, default=[1])
    if len(axes) != 1 or steps != [1]:
        raise Unsupported("a slice of several axes at places that depend on the input")
    axis = axis_of(axes[0], source.array.ndim)
    if axis in source.extents:
        raise Unsupported("a slice of a slice, both at places that depend on the input")
    start, stop = (_place(call, i) for i in (1, 2))
    extent = Extent(source.array.shape[axis], start, stop)
    return Ragged(source.array, source.extents | {axis: extent})


def _place(call: Call, index: int) -> Data:
    found = as_data(call, call[index])
    if not is_whole(found.kind) or int(np.prod(found.shape)) != 1:
        raise Unsupported("a place that is not one whole number")
    return Data(found.position, (1,), found.kind)


def _shape(call: Call) -> np.ndarray:
    if not isinstance(call[0], Ragged):
        return shape_vector(call, call[0].shape)
    shape = np.empty(call[0].array.ndim, dtype=object)
    for i, size in enumerate(call[0].shape):
        shape[i] = size
    return shape


def _unsqueeze(call: Call) -> Value:
    source = _full(call[0])
    names = {1000 + i: e for i, e in source.extents.items()}
    tagged = tuple(1000 + i if i in source.extents else d for i, d in enumerate(source.array.shape))
    shape = unsqueezed(call, tagged)
    sizes = tuple(names[d].size if d in names else d for d in shape)
    return Ragged(
        source.array.reshape(sizes), {i: names[d] for i, d in enumerate(shape) if d in names}
    )


def _reshape(call: Call) -> Value:
    """To its own shape, or a vector to a shape whose other dimensions are one."""
    source, wanted = _full(call[0]), list(call.array(1).reshape(-1))
    if not source.extents:
        raise Unsupported("a reshape to a shape that depends on the input")
    if wanted == list(source.shape):
        return source
    real = [i for i, d in enumerate(wanted) if isinstance(d, Extent) or d != 1]
    if source.array.ndim == 1 and len(real) == 1:
        place = real[0]
        sizes = [1] * len(wanted)
        sizes[place] = source.array.size
        return Ragged(source.array.reshape(sizes), {place: source.extents[0]})
    raise Unsupported("a reshape of a constant whose extent depends on the input")


def _expand(call: Call) -> Ragged:
    source, wanted = _full(call[0]), list(call.array(1))
    blank = Ragged(np.empty([_size(d) for d in wanted]), _extents(wanted))
    return _joined([source, blank], lambda x, y: np.broadcast_to(x, np.broadcast(x, y).shape))


def _filled(call: Call) -> Ragged:
    wanted = list(call.array(0))
    value = call.attribute("value", np.zeros(1, dtype=np.float32))
    sizes = [_size(d) for d in wanted]
    return Ragged(np.full(sizes, value.reshape(-1)[0], dtype=value.dtype), _extents(wanted))


def _concat(call: Call) -> Value:
    if all(not isinstance(v, Ragged) for v in call.values):
        return np.concatenate([v.astype(object) for v in call.values])
    parts = [_full(v) for v in call.values]
    axis = axis_of(int(call.attribute("axis", 0)), parts[0].array.ndim)
    if any(p.extents != parts[0].extents for p in parts) or axis in parts[0].extents:
        raise Unsupported("a concatenation along an extent that depends on the input")
    return Ragged(np.concatenate([p.array for p in parts], axis), parts[0].extents)


def _elementwise(call: Call) -> Value:
    if all(not isinstance(v, Ragged) for v in call.values):
        raise Unsupported("arithmetic with a size that depends on the input")
    parts = [_full(v) for v in call.values]
    operation = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}[call.node.op]
    return _joined(parts, operation)


def _vector(call: Call) -> Value:
    """Vectors of sizes are plain arrays of objects; an Extent equals nothing but itself."""
    if any(isinstance(v, Ragged | Data) for v in call.values):
        raise Unsupported("a constant whose extent depends on the input")
    rules: dict[str, Any] = {
        "Equal": np.equal,
        "Where": np.where,
        "Cast": lambda x: x,
        "Gather": np.take,
    }
    return np.asarray(rules[call.node.op](*call.values))


def _joined(parts: list[Ragged], operation: Any) -> Ragged:
    """Elementwise with broadcasting; both operands must have the same extents where they have any."""
    array = operation(*[p.array for p in parts])
    found: dict[int, Extent] = {}
    for part in parts:
        for axis, extent in part.extents.items():
            place = axis + array.ndim - part.array.ndim
            if found.setdefault(place, extent) != extent:
                raise Unsupported("arithmetic of different extents")
    for part in parts:
        for axis, size in enumerate(part.array.shape):
            place = axis + array.ndim - part.array.ndim
            if place in found and axis not in part.extents and size != 1:
                raise Unsupported(
                    "arithmetic of an extent that depends on the input and a fixed one"
                )
    return Ragged(array, found)


def _scatter(call: Call) -> Data:
    """base + [entry exists] (update - base) at the places of the grid."""
    places, updates = _full(call[1]), _full(call[2])
    base = call.array(0)
    lead = places.array.shape[:-1]
    if call.attribute("reduction", "none") != "none" or updates.array.ndim != len(lead):
        raise Unsupported("a scatter of slices to places that depend on the input")
    if updates.extents != places.extents:
        raise Unsupported("a scatter whose updates and places differ in extent")
    flat = np.ravel_multi_index(tuple(np.moveaxis(places.array, -1, 0)), base.shape).reshape(-1)
    if len(np.unique(flat)) != flat.size:
        raise Unsupported("a scatter that writes one place twice")
    exists = _exists(call, places.extents, lead)
    index = np.zeros(base.size, dtype=np.int64)
    index[flat] = np.arange(flat.size)
    change = np.zeros(base.size)
    change[flat] = np.broadcast_to(updates.array, lead).reshape(-1) - base.reshape(-1)[flat]
    spread = picked(call, exists, index.reshape(base.shape))
    return add(call, multiply(call, spread, change.reshape(base.shape)), base)


def _exists(call: Call, extents: dict[int, Extent], lead: tuple[int, ...]) -> Data:
    """Truth values [lead]: whether an entry of the grid exists."""
    total: Data | None = None
    for axis, extent in sorted(extents.items()):
        shape = [extent.size if i == axis else 1 for i in range(len(lead))]
        inside = _inside(call, extent)
        own = Data(inside.position, tuple(shape), "b")
        total = own if total is None else multiply(call, total, own)
    assert total is not None, "a grid without extents is a constant"
    return expanded(call, total, lead)


def _inside(call: Call, extent: Extent) -> Data:
    """[size]: whether start <= i < stop, with places below zero counted from the end."""
    i = np.arange(extent.size, dtype=np.float64)
    start, stop = (from_end(call, v, extent.size) for v in (extent.start, extent.stop))
    after = call.same(Step(True), add(call, i, start, -1.0), "b")
    before = call.same(Step(), add(call, stop, i, -1.0), "b")
    return multiply(call, after, before)


def _full(value: Value) -> Ragged:
    if isinstance(value, Ragged):
        return value
    if isinstance(value, np.ndarray):
        return Ragged(value, {})
    raise Unsupported("a place that depends on the input beside one that does not")


def _size(entry: Any) -> int:
    return entry.size if isinstance(entry, Extent) else int(entry)


def _extents(entries: list[Any]) -> dict[int, Extent]:
    return {i: e for i, e in enumerate(entries) if isinstance(e, Extent)}
