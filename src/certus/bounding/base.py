"""BoundMethod: bounds of linear functionals of a network's output over a region."""

from abc import ABC, abstractmethod
from typing import Any, final

import torch
from torch import Tensor

from certus.bounding.budget import free_memory
from certus.bounding.multipliers import Multipliers
from certus.bounding.precision import refuse_autocast
from certus.bounding.state import State
from certus.core import ArgumentError, Bounds
from certus.graph import Graph
from certus.threats import Region

_TENSORS = 12  # of a node's size that a method keeps or needs for a moment, by measurement


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
        refuse_autocast(region.center.device)
        batch, size = len(region), graph.nodes[graph.output].numel
        if spec is None:
            rows = torch.eye(size, dtype=region.center.dtype, device=region.center.device)
            rows = rows.unsqueeze(1)
        elif spec.ndim == 3 and spec.shape[0] in (1, batch) and spec.shape[2] == size:
            rows = spec.transpose(0, 1)
        else:
            raise ArgumentError(f"spec must be [{batch} or 1, R, {size}], got {tuple(spec.shape)}")
        if not len(rows):
            raise ArgumentError("the specification has no rows")
        rows = rows.reshape(*rows.shape[:2], *graph.output_shape)
        graph = graph.resolved()
        pieces = [
            self._at_once(
                graph, region if len(piece) == batch else region.select(piece), piece, rows
            )
            for piece in _pieces(graph, region, getattr(self, "memory", None))
        ]
        lower, upper = (torch.cat(side) for side in zip(*pieces, strict=True))
        if spec is None:
            lower, upper = (b.reshape(batch, *graph.output_shape) for b in (lower, upper))
        return Bounds(lower, upper)

    def _at_once(
        self, graph: Graph, region: Region, piece: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Bounds [B, R] of some of the inputs."""
        state = self.prepare(graph, region)
        found = self.bound(state, rows if rows.shape[1] == 1 else rows[:, piece])
        return found.lower.T, found.upper.T


def _pieces(graph: Graph, region: Region, memory: int | None) -> tuple[Tensor, ...]:
    """Inputs in groups whose intervals and relaxations fit into memory together."""
    like = region.center
    values = sum(node.numel for node in graph.nodes)
    budget = free_memory(like.device) // 2 if memory is None else memory
    many = max(1, budget // (_TENSORS * values * like.dtype.itemsize))
    return torch.arange(len(region), device=like.device).split(many)


def margin_rows(labels: Tensor, classes: int, like: Tensor) -> Tensor:
    """The specification z_y - z_j for every j != y: [B, K - 1, K] for labels [B]."""
    others = torch.arange(classes - 1, device=labels.device).expand(len(labels), -1)
    others = others + (others >= labels.unsqueeze(1))
    rows = torch.zeros(len(labels), classes - 1, classes, dtype=like.dtype, device=like.device)
    rows.scatter_(2, labels.view(-1, 1, 1).expand(-1, classes - 1, 1), 1.0)
    return rows.scatter_(2, others.unsqueeze(2).to(rows.device), -1.0)
