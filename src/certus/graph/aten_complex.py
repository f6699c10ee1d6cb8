"""Complex values as pairs of real ones: transforms, products with constants, sums, moves, sizes.

A node holds a complex value [*shape] as [*shape, 2], real part first. Fourier transforms are linear; each
dimension is one product with a constant matrix.
"""

from typing import Any

import torch
from torch import Tensor, fx

from certus.graph import composite
from certus.graph.affine import Fourier, Scale, Shift, Sum
from certus.graph.aten_arithmetic import scaled, widened
from certus.graph.aten_move import moved
from certus.graph.builders import Arguments, Unsupported, applied, pairs
from certus.graph.extremum import Norm
from certus.graph.structural import Concat, Flip, Permute, Reshape, Slice

_ATEN = torch.ops.aten
_LARGE = 2**25  # entries of a transform's matrix


@pairs("_fft_r2c.default", anywhere=True)
def _real_to_complex(a: Arguments) -> int:
    """The last of the dimensions from real numbers, then the others."""
    *others, last = a["dim"]
    given = (a["normalization"], bool(a["onesided"]))
    x = _along(a, a.x(), last, _ATEN._fft_r2c.default, given, "rc")
    return _others(a, x, others, True)


@pairs("_fft_c2c.default", anywhere=True)
def _complex_to_complex(a: Arguments) -> int:
    return _others(a, a.x(), a["dim"], bool(a["forward"]))


@pairs("_fft_c2r.default", anywhere=True)
def _complex_to_real(a: Arguments) -> int:
    *others, last = a["dim"]
    x = _others(a, a.x(), others, False)
    given = (a["normalization"], int(a["last_dim_size"]))
    return _along(a, x, last, _ATEN._fft_c2r.default, given, "cr")


def _others(a: Arguments, x: int, dims: list[int], forward: bool) -> int:
    for dim in dims:
        given = (a["normalization"], forward)
        x = _along(a, x, dim, _ATEN._fft_c2c.default, given, "cc")
    return x


def _along(
    a: Arguments, x: int, dim: int, transform: Any, given: tuple[Any, Any], kinds: str
) -> int:
    """A transform of one dimension; kinds says whether it takes and gives real or complex numbers."""
    place, rank = a.dim(dim), len(a.shape(x)) + 1
    before, after = (int(kind == "c") for kind in kinds)
    last = rank - 1 - before
    order = [d for d in range(rank) if d != place]
    order.insert(last, place)
    size = a.shape(x)[place - 1]
    x = a.add(Permute(tuple(order)), x) if place != last else x
    x = a.add(Reshape((*a.shape(x)[: last - 1], size * (1 + before))), x)
    x = a.add(Fourier(_matrix(a, size, transform, given, kinds)), x)
    count = a.shape(x)[-1] // (1 + after)
    x = a.add(Reshape((*a.shape(x)[:-1], count, *([2] if after else []))), x)
    back = [d for d in range(last + 1 + after) if d != last]
    back.insert(place, last)
    return a.add(Permute(tuple(back)), x) if place != last else x


def _matrix(a: Arguments, size: int, transform: Any, given: tuple[Any, Any], kinds: str) -> Tensor:
    """[out, in]: the transform of every unit vector, in the highest precision."""
    count = size * (1 + (kinds[0] == "c"))
    if count * count > _LARGE:
        raise Unsupported(f"a transform of length {size}; cut it into shorter ones")
    units = torch.eye(count, dtype=torch.float64)
    if kinds[0] == "c":
        units = torch.view_as_complex(units.view(count, size, 2))
    found = transform(units, [1], *given)
    if kinds[1] == "c":
        found = torch.view_as_real(found).flatten(1)
    return found.T.contiguous().to(a.scope.builder.like)


@pairs(
    *("view_as_real.default", "view_as_complex.default", "clone.default", "resolve_conj.default"),
    anywhere=True,
)
def _same(a: Arguments) -> int:
    return a.x()


@pairs("_to_copy.default", "to.dtype", anywhere=True)
def _converted(a: Arguments) -> int:
    if not a.node.meta["val"].is_complex():
        raise Unsupported("a complex number taken for a real one")
    return _paired(a, a["self"])


def _paired(a: Arguments, value: fx.Node) -> int:
    """A value that depends on the input as pairs; a real one has an imaginary part of zero."""
    x = a.at(value)
    if value.meta["val"].is_complex():
        return x
    column = a.add(Reshape((*a.shape(x), 1)), x)
    return a.add(Concat(len(a.shape(column))), column, scaled(a, column, 0.0))


@pairs("_conj.default", "conj.default", anywhere=True)
def _conjugate(a: Arguments) -> int:
    return _signs(a, a.x(), 1.0, -1.0)


def _signs(a: Arguments, x: int, *factors: float) -> int:
    """Real and imaginary parts times a number each."""
    return a.add(Scale(a.scope.builder.like.new_tensor(factors)), x)


@pairs("abs.default", anywhere=True)
def _size(a: Arguments) -> int:
    x = a.x()
    return a.add(Norm(2.0, (len(a.shape(x)),)), x)


@pairs("add.Tensor", "sub.Tensor", "rsub.Tensor", "rsub.Scalar", anywhere=True)
def _sum(a: Arguments) -> int:
    left, right = a["self"], a["other"]
    if a.target.startswith("rsub"):
        left, right = right, left
    factor = float(1 if a["alpha"] is None else a["alpha"])
    factor = factor if a.target.startswith("add") else -factor
    a.aligned(left, right)
    if a.is_data(left) and a.is_data(right):
        return a.add(Sum(factor), *a.pair(_paired(a, left), _paired(a, right)))
    if a.is_data(left):
        return a.add(Shift(_constant(a, right), factor), widened(a, _paired(a, left)))
    turned = scaled(a, widened(a, _paired(a, right)), factor)
    return a.add(Shift(_constant(a, left)), turned)


@pairs("mul.Tensor", anywhere=True)
def _product(a: Arguments) -> int:
    left, right = a["self"], a["other"]
    a.aligned(left, right)
    if a.is_data(left) and a.is_data(right):
        return _both(a, *a.pair(_paired(a, left), _paired(a, right)))
    data, constant = (left, right) if a.is_data(left) else (right, left)
    return _times(a, data, _constant(a, constant))


@pairs("pow.Tensor_Scalar", "square.default", anywhere=True)
def _square(a: Arguments) -> int:
    if a.target.startswith("pow") and a["exponent"] != 2:
        raise Unsupported(f"a complex number to the power of {a['exponent']}")
    return _both(a, a.x(), a.x())


@pairs("div.Tensor", anywhere=True)
def _quotient(a: Arguments) -> int:
    if a.is_data(a["other"]):
        raise Unsupported("a division by a complex number that depends on the input")
    return _times(a, a["self"], _constant(a, a["other"], _ATEN.reciprocal.default))


def _times(a: Arguments, data: fx.Node, factor: Any) -> int:
    """x re(c) + (i x) im(c) for a constant c as pairs."""
    x = widened(a, _paired(a, data))
    real, imaginary = (applied(factor, _ATEN.narrow.default, -1, i, 1) for i in range(2))
    turned = _signs(a, a.add(Flip((len(a.shape(x)),)), x), -1.0, 1.0)
    return a.add(Sum(), a.add(Scale(real), x), a.add(Scale(imaginary), turned))


def _both(a: Arguments, x: int, y: int) -> int:
    """(a + ib) (c + id) = ac - bd + i (ad + bc)."""
    axis, builder = len(a.shape(x)), a.scope.builder
    turned = a.add(Flip((axis,)), y)
    parts = []
    for other, sign in ((y, -1.0), (turned, 1.0)):
        product = composite.multiply(builder, x, other, a.source)
        first, second = (a.add(Slice(axis, i, i + 1), product) for i in range(2))
        parts.append(a.add(Sum(sign), first, second))
    return a.add(Concat(axis), *parts)


def _constant(a: Arguments, value: Any, function: Any = None) -> Any:
    """A constant (or a function of it) as pairs [..., 2], live."""
    kind = a.scope.builder.like.dtype.to_complex()
    if isinstance(value, fx.Node):
        found = applied(a.value(value), _ATEN._to_copy.default, dtype=kind)
    else:
        found = torch.tensor(value, dtype=kind, device=a.scope.builder.like.device)
    a.broadcasts(found)
    if function is not None:
        found = applied(found, function)
    return applied(applied(found, _ATEN.resolve_conj.default), _ATEN.view_as_real.default)


@pairs(
    *("roll.default", "view.default", "reshape.default", "_unsafe_view.default"),
    *("permute.default", "transpose.int", "unsqueeze.default", "squeeze.dim", "squeeze.dims"),
    *("slice.Tensor", "select.int", "flip.default", "cat.default", "expand.default"),
    *("index.Tensor", "index_select.default"),
)
def _moved(a: Arguments) -> int:
    return moved(a)
