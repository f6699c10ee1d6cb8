"""Where the batch is in the tensors of an exported program, and how a reshape moves it.

A graph keeps the batch in dimension 0 of every value. User code (and torch.nn's own attention and
recurrent layers) moves it about: [T, B, E], or [B * heads, T, E]. A `Layout` says where it went, so
that the value can be kept with the batch in front all the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from certus.graph.op import Shape


class Unsupported(Exception):  # noqa: N818  (internal signal, becomes an UnsupportedError)
    """This use of an operation has no sound counterpart; the text says why."""


@dataclass(frozen=True)
class Layout:
    """Dimension `axis` has size outer * batch * inner, in this order of significance.

    A value with a layout is kept in one of two forms. Standard (axis 0, outer = inner = 1): the
    tensor itself, [B, *shape]. Free: [B, *one], where `one` is the shape that the tensor has for a
    batch of one, so that the operation on the tensor is the same operation on dimensions one later.
    """

    axis: int
    outer: int = 1
    inner: int = 1

    @property
    def standard(self) -> bool:
        """Whether the batch is in front and alone."""
        return self == Layout(0)


def symbolic(size: Any) -> bool:
    """Whether a size is a formula in the batch size."""
    return not isinstance(size, int) and bool(size.node.expr.free_symbols)


def factor(size: Any) -> int:
    """k of a size k * batch; the size itself where the batch is not in it."""
    if isinstance(size, int):
        return size
    expr = size.node.expr
    symbols = expr.free_symbols
    if not symbols:
        return int(expr)
    (symbol,) = symbols if len(symbols) == 1 else (None,)
    found = None if symbol is None else expr.coeff(symbol)
    if not found or not found.is_Integer or expr != found * symbol:
        raise Unsupported("a size that is no multiple of the batch size")
    return int(found)


def sizes(shape: Sequence[Any], batch: int) -> Shape:
    """The shape for a batch of the given size."""
    return tuple(factor(s) * (batch if symbolic(s) else 1) for s in shape)


def find_layout(shape: Sequence[Any], like: Sequence[tuple[Layout, int]] = ()) -> Layout:
    """The layout of a tensor with these symbolic sizes.

    A dimension that is exactly the batch is unambiguous. A multiple of it is ordered as in one of
    the inputs `like` (layout, number of dimensions) that has the same multiple in the same place
    from the right, which holds for operations that do not rearrange.
    """
    axes = [i for i, size in enumerate(shape) if symbolic(size)]
    if not axes:
        raise Unsupported("the result has no batch dimension: keep dimension 0")
    if len(axes) > 1:
        raise Unsupported("the batch appears in several dimensions")
    multiple = factor(shape[axes[0]])
    if multiple == 1:
        return Layout(axes[0])
    for layout, ndim in like:
        place = layout.axis - ndim == axes[0] - len(shape)
        if place and layout.outer * layout.inner == multiple:
            return Layout(axes[0], layout.outer, layout.inner)
    raise Unsupported("the batch dimension is mixed with others")


def reshape_layout(layout: Layout, old: Shape, shape: Sequence[Any]) -> Layout:
    """The layout after a reshape from `old` (for a batch of one) to symbolic sizes.

    The values before the batch in memory order must be the same number before and after.
    """
    axes = [i for i, size in enumerate(shape) if symbolic(size)]
    if len(axes) != 1:
        raise Unsupported("the batch appears in several dimensions or in none")
    one = sizes(shape, 1)
    before = _count(old[: layout.axis]) * layout.outer
    outside = _count(one[: axes[0]])
    multiple = one[axes[0]]
    outer = before // max(outside, 1)
    if outside * outer != before or outer == 0 or multiple % outer:
        raise Unsupported("a reshape that mixes the batch with other dimensions")
    return Layout(axes[0], outer, multiple // outer)


def _count(shape: Sequence[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def is_size(node: fx.Node) -> bool:
    """A number such as the batch size, neither a tensor nor a list of tensors."""
    plain = int | float | torch.SymInt | torch.SymFloat | torch.SymBool | None
    return node.op == "call_function" and isinstance(node.meta.get("val"), plain)
