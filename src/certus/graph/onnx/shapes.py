"""What operators that move entries ask for: shapes, slices, paddings, places and axes."""

from typing import Any

import numpy as np

from certus.graph.onnx.table import Call, Unsupported, affordable, axis_of


def ordered_pads(call: Call, rank: int) -> list[tuple[int, int]]:
    """Padding before and after each axis, from any version of Pad."""
    axes = call.ints(3, default=list(range(rank)))
    pads = call.ints(1, "pads")
    if pads is None or len(pads) != 2 * len(axes):
        raise Unsupported("padding that does not fit the tensor's dimensions")
    result = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        result[axis_of(axis, rank)] = (pads[i], pads[i + len(axes)])
    affordable([d + max(0, a) + max(0, b) for d, (a, b) in zip(call[0].shape, result, strict=True)])
    return result


def target_shape(call: Call, size: int, old: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that Reshape asks for, with 0 and -1 filled in."""
    wanted = call.ints(1, "shape")
    if wanted is None:
        raise Unsupported("a reshape without a shape")
    if not call.attribute("allowzero", 0):
        wanted = [old[i] if d == 0 and i < len(old) else d for i, d in enumerate(wanted)]
    if wanted.count(-1) == 1:
        rest = int(np.prod([d for d in wanted if d != -1], dtype=np.int64))
        if rest == 0 or size % rest:
            raise Unsupported(f"a reshape of {size} values to {wanted}")
        wanted = [size // rest if d == -1 else d for d in wanted]
    if int(np.prod(wanted, dtype=np.int64)) != size or min(wanted, default=0) < 0:
        raise Unsupported(f"a reshape of {size} values to {wanted}")
    return tuple(wanted)


def slices(call: Call, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The Python slice of every axis, from either version of Slice."""
    starts, ends = call.ints(1, "starts"), call.ints(2, "ends")
    axes = call.ints(3, "axes", list(range(len(starts))))
    steps = call.ints(4, default=[1] * len(starts))
    result = [slice(0, size, 1) for size in shape]
    named = [axis_of(axis, len(shape)) for axis in axes]
    for start, end, axis, step in zip(starts, ends, named, steps, strict=True):
        size = shape[axis]
        if step > 0:
            first, last, _ = slice(start, end, step).indices(size)
        else:  # ONNX ends before index 0 where end lies below -size
            first = min(max(start + size if start < 0 else start, 0), size - 1)
            last = min(max(end + size if end < 0 else end, -1), size - 1)
        result[axis] = slice(first, None if last < 0 else last, step)
    return tuple(result)


def squeezed(call: Call, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape after Squeeze."""
    axes = call.ints(1, "axes")
    if axes is None:
        return tuple(d for d in shape if d != 1)
    drop = {axis_of(a, len(shape)) for a in axes}
    if any(shape[a] != 1 for a in drop):
        raise Unsupported(f"a squeeze of dimensions that are not one, in {list(shape)}")
    return tuple(d for i, d in enumerate(shape) if i not in drop)


def unsqueezed(call: Call, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape after Unsqueeze."""
    axes = call.ints(1, "axes", [])
    rank = len(shape) + len(axes)
    fresh, rest = {axis_of(a, rank) for a in axes}, iter(shape)
    return tuple(1 if i in fresh else next(rest) for i in range(rank))


def split_sizes(call: Call, size: int) -> list[int]:
    """The lengths of the parts of a Split."""
    given = call.ints(1, "split")
    if given is not None:
        return list(given)
    count = int(call.attribute("num_outputs", len(call.node.outputs)))
    width = -(-size // count)
    return [max(0, min(width, size - i * width)) for i in range(count)]


def flatten_axis(call: Call, rank: int) -> int:
    """The first axis of the second dimension; it may equal the rank."""
    axis = int(call.attribute("axis", 1))
    return axis if axis == rank else axis_of(axis, rank)


def shape_vector(call: Call, shape: tuple[Any, ...]) -> Any:
    """What Shape returns, cut by its start and end."""
    start, end = int(call.attribute("start", 0)), call.attribute("end")
    plain = all(isinstance(d, int | np.integer) for d in shape)
    return np.array(shape, dtype=np.int64 if plain else object)[start:end]


def reduced_axes(call: Call, rank: int) -> tuple[int, ...]:
    """The axes of a reduction; all where none are named, unless that means none."""
    axes = call.ints(1, "axes")
    if not axes:
        return () if call.attribute("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted(axis_of(a, rank) for a in axes))
