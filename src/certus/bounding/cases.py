"""Cases: another method on every value that the integer-valued nodes of a network may take."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from certus.bounding.arithmetic import Arithmetic
from certus.bounding.base import BoundMethod
from certus.bounding.combine import check_methods
from certus.bounding.state import State
from certus.core import Bounds
from certus.core.numerics import guard, sound
from certus.core.validate import count
from certus.graph import Graph
from certus.graph.builder import Builder
from certus.graph.extremum import ArgMax
from certus.graph.fusion import needed
from certus.graph.graph import Node
from certus.graph.piecewise import Sign, Stairs, Step
from certus.graph.structural import Reshape, Slice
from certus.relax import Interval
from certus.threats import Box, Region
from certus.threats.product import Product

_INTEGER = (Stairs, Sign, Step, ArgMax)  # operations whose values are integers


@dataclass(frozen=True, eq=False)
class _Undivided(State):
    own: State = field(kw_only=True)

    def select(self, index: Tensor) -> "_Undivided":
        """The method's own state of these inputs."""
        return replace(super().select(index), own=self.own.select(index))


@dataclass(frozen=True)
class Cases(BoundMethod):
    """The hull of another method's bounds over all cases: one for each value of integer-valued nodes.

    Steps, signs, roundings and positions of largest values lose everything when they are bounded by
    intervals, and what depends on them may leave a function's domain: a patch that may lie anywhere
    leaves an intersection over union that divides by an interval around zero. For every x there is
    one case in which these nodes have the values that they have at x; there the node is replaced by
    an input of that value, and the rest of the network is plain. So the hull over all integers of the
    nodes' intervals is sound for every region and every method. What leads to such a node is not cut:
    x keeps its whole region in every case.

    most: cases for one input; nodes are taken in the order of evaluation while the product of their
    numbers of values fits. Nodes that depend on one that was taken are left to the method: nest
    `Cases` for them. batch: cases that are bounded together. An input without such nodes, or with too many
    cases, costs what the method costs. Inner intervals are the method's own, without cases.
    `certus.bounds` and `certus.certify` take `Cases` of a method by themselves (`suited`).
    """

    method: BoundMethod
    most: int = 4096
    batch: int = 64

    def __post_init__(self) -> None:
        """Validate."""
        check_methods(self.method)
        count(self.most, "most")
        count(self.batch, "batch")

    @property
    def memory(self) -> int | None:
        """That of the method."""
        return self.method.memory

    def prepare(self, graph: Graph, region: Region) -> State:
        """The method's own state; its intervals tell which values are possible."""
        own = self.method.prepare(graph, region)
        return _Undivided(graph, region, own.intervals, own=own)

    def under(self, arithmetic: Arithmetic) -> "Cases | None":
        """The method in another arithmetic on the same cases; their values are exact in any."""
        own = self.method.under(arithmetic)
        return None if own is None else replace(self, method=own)

    def bound(self, state: State, rows: Tensor) -> Bounds:
        """The method's bounds, met with the hull over the cases of every input that has several."""
        assert isinstance(state, _Undivided)
        plain = self.method.bound(state.own, rows)
        if not divisible(state.graph):
            return plain
        lower, upper = list(plain.lower.unbind(1)), list(plain.upper.unbind(1))
        for b in range(len(lower)):
            intervals = {i: (low[b], high[b]) for i, (low, high) in state.intervals.items()}
            taken = _taken(state.graph, intervals, self.most)
            if not taken and not plain.lower.requires_grad:
                continue
            index = torch.tensor([b], device=rows.device)
            region = state.region.select(index)
            spec = (rows if rows.shape[1] == 1 else rows[:, index]).flatten(2).transpose(0, 1)
            if taken:
                ends = [intervals[i] for i in taken]
                found = self._hull(state.graph, region, taken, ends, spec)
                lower[b], upper[b] = _met(found, lower[b].detach(), upper[b].detach())
            else:  # gradients by itself: those of other inputs may be NaN
                alone = self.method(state.graph, region, spec)
                lower[b], upper[b] = alone.lower[0], alone.upper[0]
        return Bounds(torch.stack(lower, 1), torch.stack(upper, 1))

    def _hull(
        self,
        graph: Graph,
        region: Region,
        taken: list[int],
        intervals: Sequence[Interval],
        spec: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Bounds [R] of one input for a specification [1, R, K]; NaN where any case gives NaN."""
        values = _values(intervals)
        lifted = _lifted(graph, taken, values)
        parts = [
            self.method(lifted, _beside(region, piece), spec) for piece in values.split(self.batch)
        ]
        lower, upper = torch.cat([p.lower for p in parts]), torch.cat([p.upper for p in parts])
        return lower.amin(0), upper.amax(0)


def _met(found: Interval, lower: Tensor, upper: Tensor) -> Interval:
    """Bounds met with others where these may be used: NaN says nothing and takes nothing."""
    usable = sound(lower, upper)
    low, high = torch.maximum(found[0], lower), torch.minimum(found[1], upper)
    return torch.where(usable, low, found[0]), torch.where(usable, high, found[1])


def divisible(graph: Graph) -> bool:
    """Whether a network has nodes whose values are integers."""
    return any(isinstance(node.op, _INTEGER) for node in graph.nodes)


def suited(method: BoundMethod, graph: Graph) -> BoundMethod:
    """The method, in `Cases` where the network has integer-valued nodes."""
    return Cases(method) if divisible(graph) and not isinstance(method, Cases) else method


def _taken(graph: Graph, intervals: dict[int, Interval], most: int) -> list[int]:
    """Positions of integer-valued nodes with several values, as many as `most` cases allow."""
    wanted = needed(graph) & intervals.keys()
    taken: list[int] = []
    cases = 1.0
    for position, node in enumerate(graph.nodes):
        if not isinstance(node.op, _INTEGER) or position not in wanted:
            continue
        values = _count(intervals[position])
        if 1 < values <= most // cases and not needed(graph, position) & set(taken):
            taken.append(position)
            cases *= values
    return taken


def _count(interval: Interval) -> float:
    """How many values a node may take; infinite where its interval is no interval."""
    lower, upper = _ends(interval)
    number = (upper - lower + 1).double()
    return float(number.prod()) if bool((number >= 1).all()) else float("inf")


def _ends(interval: Interval) -> Interval:
    """The smallest and largest integers of an interval [*shape], flattened.

    A bound that came out of a sum may lie a rounding beyond the integer that it stands for.
    """
    lower, upper = (end.detach().flatten() for end in interval)
    return (lower - guard(lower)).ceil(), (upper + guard(upper)).floor()


def _values(intervals: Sequence[Interval]) -> Tensor:
    """All cases [N, values of the nodes side by side]."""
    lower, upper = (torch.cat(side) for side in zip(*map(_ends, intervals), strict=True))
    ranges = [
        torch.arange(int(high - low) + 1).to(lower) + low
        for low, high in zip(lower, upper, strict=True)
    ]
    return torch.cartesian_prod(*ranges).view(-1, len(ranges))


def _lifted(graph: Graph, taken: Sequence[int], like: Tensor) -> Graph:
    """The network of x and the values of some nodes, side by side in one flat input."""
    start = graph.nodes[0].numel
    sizes = [graph.nodes[i].numel for i in taken]
    builder = Builder((start + sum(sizes),), like)

    def read(first: int, node: Node) -> int:
        return builder.add(Reshape(node.shape), builder.add(Slice(1, first, first + node.numel), 0))

    place = {0: read(0, graph.nodes[0])}
    for position, node in enumerate(graph.nodes[: graph.output + 1]):
        if position in taken:
            place[position] = read(start, node)
            start += node.numel
        elif position:
            inputs = [place[i] for i in node.inputs]
            place[position] = builder.add(node.op, *inputs, source=node.source)
    return builder.finish(place[graph.output], graph.original)  # whose engine counts; never called


def _beside(region: Region, values: Tensor) -> Region:
    """The region of one input with each of some values [N, m]: [N, n + m]."""
    many = region.select(torch.zeros(len(values), dtype=torch.int64, device=values.device))
    if isinstance(region, Box):
        ends = [torch.cat([end.flatten(1), values], 1) for end in (many.lower, many.upper)]
        return Box(ends[0], ends[1])
    return Product([many, Box(values, values)])
