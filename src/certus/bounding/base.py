"""BoundMethod: bounds of linear functionals of a network's output over a region."""

from abc import ABC, abstractmethod
from typing import Any, final

import torch
from torch import Tensor

from certus.bounding.budget import groups
from certus.bounding.multipliers import Multipliers
from certus.bounding.precision import refuse_autocast
from certus.bounding.state import State
from certus.core import ArgumentError, Bounds
from certus.core.validate import count
from certus.graph import Graph
from certus.threats import Region


class BoundMethod(ABC):
    """lower <= <c, f(x')> <= upper for every x' of the region and every row c of a specification.

    Bounds hold in exact arithmetic; they are computed in the model's dtype without directed
    rounding, and differentiable with respect to parameters, inputs and eps.
    """

    @abstractmethod
    def prepare(self, graph: Graph, region: Region) -> State:
        """Bound the inner nodes: work that every specification shares."""

    @abstractmethod
    def bound(self, state: State, rows: Tensor) -> Bounds:
        """Bounds [R, B] of <row, output> for rows [R, B, *out] or [R, 1, *out]."""

    def lower(self, state: State, rows: Tensor) -> Tensor:
        """Lower bounds [R, B] alone, where a method has them cheaper than both."""
        return self.bound(state, rows).lower

    def improved(
        self, state: State, rows: Tensor, start: Multipliers | None = None
    ) -> tuple[Tensor, Multipliers]:
        """Lower bounds [R, B], and multipliers that prove no less, up to rounding.

        start: where they begin, such as those of the same rows for a larger region, or before a neuron
        was split; the bounds are at least what these prove on this state. Upper bounds are lower ones
        of negative rows. A method without multipliers has its bounds, and no multipliers.
        """
        return self.lower(state, rows), Multipliers()

    @property
    def memory(self) -> int | None:
        """Bytes that inputs bounded together may take, None for half of what is free."""
        return None

    def values(self, graph: Graph) -> int:
        """Elements that one input takes in each of the tensors that are alive at the same time."""
        return sum(node.numel for node in graph.nodes)

    def under(self, arithmetic: Any) -> "BoundMethod | None":
        """The same method in another `Arithmetic`; None where it has one alone."""
        return None

    @final
    def __call__(self, graph: Graph, region: Region, spec: Tensor | None = None) -> Bounds:
        """Bounds of the specification, or of every output where it is None.

        spec is [B, R, K] (or [1, R, K], shared) with K the flattened size of the output; the result
        is [B, R]. Without a specification it is [B, *output_shape]. A value that could not be
        bounded comes out as NaN or infinite; `certus.core.numerics.sound` tells which may be used.
        """
        if tuple(region.center.shape[1:]) != graph.input_shape:
            raise ArgumentError(
                f"the region has shape {tuple(region.center.shape[1:])}, the model takes {graph.input_shape}"
            )
        like, size = region.center, graph.nodes[graph.output].numel
        batch = len(like)
        if spec is None:
            rows = torch.eye(size, dtype=like.dtype, device=like.device).unsqueeze(1)
        elif spec.ndim == 3 and spec.shape[0] in (1, batch) and spec.shape[2] == size:
            rows = spec.transpose(0, 1)
        else:
            raise ArgumentError(f"spec must be [{batch} or 1, R, {size}], got {tuple(spec.shape)}")
        if not len(rows):
            raise ArgumentError("the specification has no rows")
        rows = rows.reshape(*rows.shape[:2], *graph.output_shape)
        graph, found = graph.resolved(), []
        for index in self.groups(graph, like):
            part = region if len(index) == batch else region.select(index)
            own = rows if rows.shape[1] == 1 else rows[:, index]
            found.append(self.at_once(graph, part, own)[1])
        lower = torch.cat([bounds.lower.T for bounds in found])
        upper = torch.cat([bounds.upper.T for bounds in found])
        if spec is None:
            lower, upper = (b.reshape(batch, *graph.output_shape) for b in (lower, upper))
        return Bounds(lower, upper)

    @final
    def groups(self, graph: Graph, like: Tensor) -> tuple[Tensor, ...]:
        """Positions of inputs like [B, *shape] that are bounded together, group by group."""
        return groups(graph, like, self.memory, self.values(graph))

    @final
    def at_once(self, graph: Graph, region: Region, rows: Tensor) -> tuple[State, Bounds]:
        """The state of a group of inputs on a resolved graph, and the bounds [R, b] of its rows."""
        refuse_autocast(region.center.device)
        state = self.prepare(graph, region)
        return state, self.bound(state, rows)


def check_memory(memory: int | None) -> None:
    """Refuse what is no number of bytes: ArgumentError."""
    if memory is not None:
        count(memory, "memory")


def margin_rows(labels: Tensor, classes: int, like: Tensor) -> Tensor:
    """The specification z_y - z_j for every j != y: [B, K - 1, K] for labels [B]."""
    others = torch.arange(classes - 1, device=labels.device).expand(len(labels), -1)
    others = others + (others >= labels.unsqueeze(1))
    rows = torch.zeros(len(labels), classes - 1, classes, dtype=like.dtype, device=like.device)
    rows.scatter_(2, labels.view(-1, 1, 1).expand(-1, classes - 1, 1), 1.0)
    return rows.scatter_(2, others.unsqueeze(2).to(rows.device), -1.0)
