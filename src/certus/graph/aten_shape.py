"""ATen views, permutations, slices and concatenations."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from certus.graph import conversion
from certus.graph.aten_arithmetic import widened
from certus.graph.builders import Arguments, Unsupported, builds
from certus.graph.layout import Layout, reshape_layout
from certus.graph.precision import name_of
from certus.graph.structural import Concat, Expand, Flip, Permute, Reshape, Select, Slice


def _same_order(a: Arguments) -> Layout:
    """Where the batch is after an operation that keeps the order in memory."""
    return reshape_layout(a.layout(), a.one(a["self"]), a.node.meta["val"].shape)


@builds(
    *("view.default", "reshape.default", "flatten.using_ints", "_unsafe_view.default"),
    *("squeeze.default", "squeeze.dim", "squeeze.dims", "unsqueeze.default", "unflatten.int"),
    *("view_as.default", "reshape_as.default", "ravel.default", "_reshape_copy.default"),
    anywhere=True,
    layout=_same_order,
)
def _reshape(a: Arguments) -> int:
    return a.add(Reshape(a.canonical()), a.x())


def _order(a: Arguments) -> list[int]:
    """For each dimension of the result the one that it comes from."""
    marked = torch.empty(
        tuple(range(2, 2 + a.ndim())), device="meta"
    )  # every size tells its dimension
    result = a.node.target(marked, *a.node.args[1:], **a.node.kwargs)  # type: ignore[operator]
    return [size - 2 for size in result.shape]


def _moved(a: Arguments) -> Layout:
    layout = a.layout()
    return Layout(_order(a).index(layout.axis), layout.outer, layout.inner)


@builds(
    *("permute.default", "transpose.int", "t.default", "movedim.int", "movedim.intlist"),
    *("swapaxes.default", "swapdims.default", "moveaxis.int", "moveaxis.intlist"),
    *("numpy_T.default", "mT.default", "adjoint.default", "matrix_H.default"),
    anywhere=True,
    layout=_moved,
)
def _permute(a: Arguments) -> int:
    order = _order(a)
    if a.free:
        return a.add(Permute((0, *[d + 1 for d in order])), a.x())
    return a.x() if order == sorted(order) else a.add(Permute(tuple(order)), a.x())


@builds("slice.Tensor", "narrow.default", anywhere=True)
def _slice(a: Arguments) -> int:
    full = a["self"].meta["val"].shape
    dim = (a["dim"] or 0) % len(full)
    start, stop, step = a["start"], a["end"], a["step"] or 1
    if a.target.startswith("narrow"):
        stop = start + a["length"] if isinstance(start, int) else None
    if dim == a.layout().axis:
        if start in (0, None) and step == 1 and a.node.meta["val"].shape[dim] == full[dim]:
            return a.x()
        raise Unsupported("slicing along the batch")
    if not all(isinstance(v, int | None) for v in (start, stop)):
        raise Unsupported("a slice that depends on the batch size")
    start, stop, _ = slice(start, stop).indices(full[dim])
    if (start, stop, step) == (0, full[dim], 1):
        return a.x()
    return a.add(Slice(a.dim(dim), start, stop, step), a.x())


@builds("select.int", anywhere=True)
def _select(a: Arguments) -> int:
    size = a["self"].meta["val"].shape[a["dim"]]
    dim = a.dim(a["dim"])
    return a.add(Select(dim, a["index"] % size), a.x())


@builds(
    *("split.Tensor", "split.sizes", "split_with_sizes.default", "chunk.default"),
    *("tensor_split.sections", "tensor_split.indices", "unsafe_split.Tensor"),
    *("unsafe_chunk.default", "unsafe_split_with_sizes.default", "split_copy.Tensor"),
    anywhere=True,
)
def _split(a: Arguments) -> tuple[int | None, ...]:
    given = a["dim"] or 0
    dim, pieces, start = a.dim(given), [], 0
    for value in a.node.meta["val"]:
        size = value.shape[given]
        pieces.append(a.add(Slice(dim, start, start + size), a.x()))
        start += size
    return tuple(pieces)


@builds("unbind.int", anywhere=True)
def _unbind(a: Arguments) -> tuple[int | None, ...]:
    dim = a.dim(a["dim"] or 0)
    return tuple(a.add(Select(dim, i), a.x()) for i in range(len(a.node.meta["val"])))


@builds("cat.default", "concat.default", "concatenate.default", anywhere=True)
def _cat(a: Arguments) -> int:
    ndim = a.node.meta["val"].ndim
    dim = (a["dim"] or 0) % ndim
    parts = [p for p in a["tensors"] if p.meta["val"].ndim == ndim]
    return _joined(a, parts, dim, ndim)


def _joined(a: Arguments, parts: Sequence[fx.Node], dim: int, rank: int) -> int:
    if dim == a.result().axis:
        raise Unsupported("concatenation along the batch")
    a.aligned(*parts)
    places = [a.at(p, rank) for p in parts]
    return places[0] if len(places) == 1 else a.add(Concat(dim + a.free), *places)


@builds("stack.default", anywhere=True)
def _stack(a: Arguments) -> int:
    ndim = a.node.meta["val"].ndim
    dim = (a["dim"] or 0) % ndim
    places = []
    for part in a["tensors"]:
        place = a.at(part, ndim - 1)
        shape = list(a.shape(place))
        shape.insert(dim - (not a.free), 1)
        places.append(a.add(Reshape(tuple(shape)), place))
    return a.add(Concat(dim + a.free), *places)


@builds("expand.default", "expand_as.default", "broadcast_to.default", anywhere=True)
def _expand(a: Arguments) -> int:
    place = widened(a, a.x())
    shape = a.canonical()
    return place if a.shape(place) == shape else a.add(Expand(shape), place)


@builds("flip.default", anywhere=True)
def _flip(a: Arguments) -> int:
    return a.add(Flip(tuple(a.dim(d) for d in a["dims"])), a.x())


@builds(
    *("clone.default", "contiguous.default", "detach.default", "alias.default"),
    *("lift_fresh_copy.default", "view_copy.default", "positive.default", "conj.default"),
    *("resolve_conj.default", "resolve_neg.default", "real.default"),
    anywhere=True,
)
def _same(a: Arguments) -> int:
    return a.x()


@builds(
    *(
        "to.dtype",
        "to.dtype_layout",
        "to.device",
        "to.other",
        "_to_copy.default",
        "type_as.default",
    ),
    *("float.default", "double.default", "prims.convert_element_type.default"),
    anywhere=True,
)
def _cast(a: Arguments) -> int:
    """To whole numbers: towards zero, inside their type. Floating types are one, see `admissible`."""
    before, after = a["self"].meta["val"].dtype, a.node.meta["val"].dtype
    if after == before or after.is_floating_point or before == torch.bool:
        return a.x()
    builder = a.scope.builder
    if after == torch.bool:
        return conversion.not_zero(builder, a.x(), a.source)
    x = conversion.truncated(builder, a.x(), a.source) if before.is_floating_point else a.x()
    return conversion.held(builder, x, name_of(after), a.source)


@builds("dropout.default", "feature_dropout.default", "alpha_dropout.default", anywhere=True)
def _dropout(a: Arguments) -> int:
    _evaluated(a)
    return a.x("input")


@builds("native_dropout.default", anywhere=True)
def _native_dropout(a: Arguments) -> tuple[int | None, ...]:
    _evaluated(a)
    return a.x("input"), None


def _evaluated(a: Arguments) -> None:
    train: Any = a["train"]
    if train and a["p"] != 0:
        raise Unsupported("dropout in training mode")
