"""Forward methods: every node gets a form over the input, bounded where a non-linear node needs it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import torch
from torch import Tensor

from certus.bounding.arithmetic import step
from certus.bounding.base import BoundMethod
from certus.bounding.state import State
from certus.core import Bounds, UnsupportedError
from certus.core.numerics import sound
from certus.graph import Graph, Node
from certus.graph.affine import Conv, Linear
from certus.graph.fusion import Constant, fused, needed
from certus.graph.op import Affine, Shape
from certus.relax import Interval
from certus.threats import Region

_PIECE = 2**24  # elements of one batch of generators or of rows


class Form(ABC):
    """What a forward method knows about the value of a node, as a function of the input."""

    @abstractmethod
    def bounds(self, region: Region, rows: Tensor) -> Bounds:
        """Bounds [R, B] of <row, value> for rows [R, B or 1, *shape]."""

    @abstractmethod
    def interval(self, region: Region, shape: Shape) -> Interval:
        """Bounds [B, *shape] of every element."""


@dataclass(frozen=True, eq=False)
class Propagated(State):
    """A state that keeps the output's form."""

    form: Any = field(kw_only=True)  # the Form of the method that made the state

    def select(self, index: Tensor) -> NoReturn:
        """UnsupportedError: forms are not taken apart."""
        raise UnsupportedError("the state of a forward method is of all its inputs: prepare anew")


@dataclass(frozen=True, eq=False)
class Known:
    """Intervals of the inputs of an operation, and the interval of its value."""

    given: list[Interval]
    own: Interval


class Propagation(BoundMethod):
    """A walk from the input to the output; leaves say how forms begin and pass operations.

    Inner intervals are those of the forms, met with interval arithmetic. Memory is that of the forms
    that are still needed: the number of inputs times the node's size, times the batch, which `memory`
    limits.
    """

    @abstractmethod
    def start(self, region: Region) -> Form:
        """The form of the input itself."""

    @abstractmethod
    def affine(self, op: Affine, forms: Sequence[Any], shapes: list[Shape]) -> Form:
        """The form after an affine operation: exact."""

    @abstractmethod
    def relaxed(self, node: Node, position: int, forms: Sequence[Any], known: Known) -> Form:
        """The form after the non-linear operation of the node at `position`."""

    def prepare(self, graph: Graph, region: Region) -> State:
        """Forms and intervals, node by node; a form is dropped after its last use."""
        graph = fused(graph)
        wanted = needed(graph)
        forms: dict[int, Form] = {0: self.start(region)}
        intervals: dict[int, Interval] = {0: (region.lower, region.upper)}
        known = {0}
        last = {s: at for at, n in enumerate(graph.nodes) if at in wanted for s in n.inputs}
        for position, node in enumerate(graph.nodes):
            if position == 0 or position not in wanted:
                continue
            own = [forms[source] for source in node.inputs]
            if isinstance(node.op, Affine):
                intervals[position] = step(node, intervals)
                forms[position] = self.affine(node.op, own, graph.shapes(node))
            else:
                for source in set(node.inputs) - known:
                    found = forms[source].interval(region, graph.nodes[source].shape)
                    intervals[source] = meet(intervals[source], found)
                    known.add(source)
                intervals[position] = step(node, intervals)
                given = [intervals[source] for source in node.inputs]
                state = Known(given, intervals[position])
                forms[position] = self.relaxed(node, position, own, state)
            for source in node.inputs:
                if last[source] == position and source != graph.output:
                    forms.pop(source, None)
        return Propagated(graph, region, intervals, form=forms[graph.output])

    def values(self, graph: Graph) -> int:
        """A coefficient for every input and every value of the widest node."""
        return graph.nodes[0].numel * max(node.numel for node in graph.nodes)

    def bound(self, state: State, rows: Tensor) -> Bounds:
        """Bounds of functionals of the output's form."""
        assert isinstance(state, Propagated)
        form: Form = state.form
        return form.bounds(state.region, rows)


def meet(a: Interval, b: Interval) -> Interval:
    """The intersection. Crossed by rounding: both ends kept. By more, or not finite: NaN."""
    lower, upper = torch.maximum(a[0], b[0]), torch.minimum(a[1], b[1])
    low, high = torch.minimum(lower, upper), torch.maximum(lower, upper)
    usable = sound(lower, upper)
    nan = torch.full_like(low, float("nan"))
    return torch.where(usable, low, nan), torch.where(usable, high, nan)


def identity(region: Region) -> Tensor:
    """The input as a linear function of itself: [n, 1, *shape]."""
    center = region.center
    size = center[0].numel()
    eye = torch.eye(size, dtype=center.dtype, device=center.device)
    return eye.view(size, 1, *center.shape[1:])


def linear(op: Affine, parts: Sequence[Tensor | None], shapes: list[Shape]) -> Tensor | None:
    """sum_i W_i g_i for batches of generators g_i [m, b, *in_i], None for zero: [m, b, *out].

    Without the offset, and without subtracting one offset from another.
    """
    given = [part for part in parts if part is not None]
    if not given or isinstance(op, Constant):
        return None
    count, batch = given[0].shape[0], max(part.shape[1] for part in given)
    full = [
        given[0].new_zeros(1, 1, *shape).expand(count, batch, *shape)
        if part is None
        else part.expand(count, batch, *shape)
        for part, shape in zip(parts, shapes, strict=True)
    ]
    size = batch * max(torch.Size(shape).numel() for shape in shapes)
    pieces = [tensor.split(max(1, _PIECE // size)) for tensor in full]
    found = [_linear(op, piece, shapes) for piece in zip(*pieces, strict=True)]
    return found[0] if len(found) == 1 else torch.cat(found)


def _linear(op: Affine, parts: Sequence[Tensor], shapes: list[Shape]) -> Tensor:
    count, batch = parts[0].shape[:2]
    flat = [p.reshape(-1, *s) for p, s in zip(parts, shapes, strict=True)]
    if isinstance(op, Linear | Conv):
        value = replace(op, bias=None).forward(*flat)
    elif op.offset(shapes, flat[0]) is None:
        value = op.forward(*flat)
    else:  # the transpose of the transpose
        like = op.forward(*[f.new_zeros(1, *s) for f, s in zip(flat, shapes, strict=True)])
        origin = torch.zeros_like(like).expand(count * batch, *like.shape[1:])
        back = torch.func.vjp(lambda rows: tuple(op.transpose(rows, shapes)), origin)[1]
        value = back(tuple(flat))[0]
    return value.reshape(count, batch, *value.shape[1:])


def rows_of(coefficients: Tensor, shape: Shape) -> Tensor:
    """[n, b, *node] as one row over the input for every element of the node: [numel, b, *shape]."""
    flat = coefficients.reshape(*coefficients.shape[:2], -1).permute(2, 1, 0)
    return flat.reshape(*flat.shape[:2], *shape)


def contracted(rows: Tensor, coefficients: Tensor) -> Tensor:
    """<row, generator> for rows [R, b, *node] and generators [m, b', *node]: [R, max(b, b'), m]."""
    left = rows.reshape(*rows.shape[:2], -1).transpose(0, 1)
    right = coefficients.reshape(*coefficients.shape[:2], -1).permute(1, 2, 0)
    return (left @ right).transpose(0, 1)


def ranges(region: Region, rows: Tensor) -> tuple[Tensor, Tensor]:
    """region.linear_range in pieces of bounded size."""
    size = len(region) * rows[0, 0].numel()
    found = [region.linear_range(piece) for piece in rows.split(max(1, _PIECE // size))]
    return torch.cat([low for low, _ in found]), torch.cat([high for _, high in found])
