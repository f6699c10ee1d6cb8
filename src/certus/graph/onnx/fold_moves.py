"""Operators that move, copy or select entries, on numpy arrays of any type.

They serve twice: on constants (shape subgraphs), and on an array of positions, which tells where each
entry of a result that depends on the input comes from (`moves`).
"""

from typing import Any

import numpy as np

from certus.graph.onnx.table import Call, Unsupported, affordable, axis_of, folds

Array = np.ndarray


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


@folds("Identity", "Dropout")
def _identity(call: Call) -> Array:
    return call.array(0)


@folds("Reshape")
def _reshape(call: Call) -> Array:
    x = call.array(0)
    return x.reshape(target_shape(call, x.size, x.shape))


@folds("Flatten")
def _flatten(call: Call) -> Array:
    x = call.array(0)
    axis = flatten_axis(call, x.ndim)
    return x.reshape(int(np.prod(x.shape[:axis], dtype=np.int64)), -1)


def flatten_axis(call: Call, rank: int) -> int:
    """The first axis of the second dimension; it may equal the rank."""
    axis = int(call.attribute("axis", 1))
    return axis if axis == rank else axis_of(axis, rank)


@folds("Squeeze")
def _squeeze(call: Call) -> Array:
    return call.array(0).reshape(squeezed(call, call.array(0).shape))


@folds("Unsqueeze")
def _unsqueeze(call: Call) -> Array:
    return call.array(0).reshape(unsqueezed(call, call.array(0).shape))


@folds("Transpose")
def _transpose(call: Call) -> Array:
    return call.array(0).transpose(call.attribute("perm"))


@folds("Slice")
def _slice(call: Call) -> Array:
    return call.array(0)[slices(call, call.array(0).shape)]


@folds("Split")
def _split(call: Call) -> list[Array]:
    x = call.array(0)
    axis = axis_of(int(call.attribute("axis", 0)), x.ndim)
    stops = np.cumsum(split_sizes(call, x.shape[axis]))[:-1]
    return list(np.split(x, stops, axis))


@folds("Concat")
def _concat(call: Call) -> Array:
    parts = [call.array(i) for i in range(len(call.values))]
    if any(p.dtype == object for p in parts):
        parts = [p.astype(object) for p in parts]
    return np.concatenate(parts, int(call.attribute("axis", 0)))


@folds("Expand")
def _expand(call: Call) -> Array:
    x = call.array(0)
    return np.broadcast_to(x, affordable(np.broadcast_shapes(x.shape, tuple(call.ints(1)))))


@folds("Tile")
def _tile(call: Call) -> Array:
    times, shape = call.ints(1), call.array(0).shape
    affordable([d * n for d, n in zip(shape, times, strict=True)])
    return np.tile(call.array(0), times)


@folds("Gather")
def _gather(call: Call) -> Array:
    return np.take(call.array(0), indices(call, 1), int(call.attribute("axis", 0)))


def indices(call: Call, index: int) -> Array:
    """An input of indices as int64."""
    return np.asarray(call.array(index)).astype(np.int64)


@folds("GatherElements")
def _gather_elements(call: Call) -> Array:
    x, axis = call.array(0), int(call.attribute("axis", 0))
    places = indices(call, 1)
    return np.take_along_axis(x, places % x.shape[axis], axis)


@folds("GatherND")
def _gather_nd(call: Call) -> Array:
    x, places, batch = call.array(0), indices(call, 1), int(call.attribute("batch_dims", 0))
    lead = np.indices(places.shape[:-1])[:batch]  # the batch dimensions index themselves
    return x[tuple(lead) + tuple(np.moveaxis(places, -1, 0))]


@folds("DepthToSpace")
def _depth_to_space(call: Call) -> Array:
    x, block = call.array(0), int(call.attribute("blocksize"))
    n, c, h, w = x.shape
    if call.attribute("mode", "DCR") == "DCR":
        x = x.reshape(n, block, block, c // block**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        x = x.reshape(n, c // block**2, block, block, h, w).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(n, c // block**2, h * block, w * block)


@folds("SpaceToDepth")
def _space_to_depth(call: Call) -> Array:
    x, block = call.array(0), int(call.attribute("blocksize"))
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // block, block, w // block, block).transpose(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * block**2, h // block, w // block)


@folds("ReverseSequence")
def _reverse(call: Call) -> Array:
    raise Unsupported("sequences of different lengths")


@folds("Pad")
def _pad(call: Call) -> Array:
    x, mode = call.array(0), call.attribute("mode", "constant")
    pads = ordered_pads(call, x.ndim)
    if min(min(pair) for pair in pads) < 0:
        x = x[
            tuple(
                slice(max(0, -a), d - max(0, -b)) for (a, b), d in zip(pads, x.shape, strict=True)
            )
        ]
        pads = [(max(0, a), max(0, b)) for a, b in pads]
    if mode == "constant":
        value = call.number(2, "value", 0.0)
        return np.pad(x, pads, constant_values=np.asarray(value).astype(x.dtype))
    kinds: Any = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}
    return np.pad(x, pads, mode=kinds[mode])


@folds("Trilu")
def _trilu(call: Call) -> Array:
    k = int(call.number(1, default=0.0) or 0)
    return (np.triu if call.attribute("upper", 1) else np.tril)(call.array(0), k)


@folds("ScatterND")
def _scatter_nd(call: Call) -> Array:
    result, places = call.array(0).copy(), indices(call, 1)
    _no_reduction(call)
    result[tuple(np.moveaxis(places, -1, 0))] = call.array(2)
    return result


@folds("ScatterElements", "Scatter")
def _scatter_elements(call: Call) -> Array:
    result, axis = call.array(0).copy(), int(call.attribute("axis", 0))
    _no_reduction(call)
    np.put_along_axis(result, indices(call, 1) % result.shape[axis], call.array(2), axis)
    return result


def _no_reduction(call: Call) -> None:
    if call.attribute("reduction", "none") != "none":
        raise Unsupported(f"scatter with reduction {call.attribute('reduction')}")
