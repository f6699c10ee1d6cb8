"""Methods made of methods: the tightest of several, and one in pieces."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from certus.bounding.arithmetic import Arithmetic
from certus.bounding.base import BoundMethod
from certus.bounding.state import State
from certus.core import ArgumentError, Bounds
from certus.core.validate import count
from certus.graph import Graph
from certus.threats import Region


@dataclass(frozen=True, eq=False)
class _Met(State):
    parts: tuple[State, ...] = field(kw_only=True)

    def select(self, index: Tensor) -> "_Met":
        """The parts of these inputs."""
        return replace(super().select(index), parts=tuple(p.select(index) for p in self.parts))


@dataclass(frozen=True, eq=False)
class _Pieces(State):
    parts: tuple[State, ...] = field(kw_only=True)

    def select(self, index: Tensor) -> "_Pieces":
        """Every input a piece of its own."""
        places = torch.arange(len(self.region), device=index.device)[index]
        ends = torch.tensor([len(part.region) for part in self.parts]).cumsum(0).tolist()
        parts = []
        for place in places.tolist():
            at = bisect_right(ends, place)
            first = ends[at - 1] if at else 0
            parts.append(self.parts[at].select(torch.tensor([place - first], device=index.device)))
        return replace(super().select(index), parts=tuple(parts))


@dataclass(frozen=True)
class Tightest(BoundMethod):
    """The intersection of what several methods prove: max of lower, min of upper bounds."""

    methods: tuple[BoundMethod, ...]

    def __init__(self, *methods: BoundMethod) -> None:
        if not methods:
            raise ArgumentError("Tightest needs at least one method")
        check_methods(*methods)
        object.__setattr__(self, "methods", methods)

    def under(self, arithmetic: Arithmetic) -> "Tightest | None":
        """All parts that have another arithmetic; None where no one has."""
        parts = [part for method in self.methods if (part := method.under(arithmetic)) is not None]
        return Tightest(*parts) if parts else None

    @property
    def memory(self) -> int | None:
        """The least of the methods'."""
        return min((m.memory for m in self.methods if m.memory is not None), default=None)

    def values(self, graph: Graph) -> int:
        """As many as the neediest of the methods."""
        return max(method.values(graph) for method in self.methods)

    def prepare(self, graph: Graph, region: Region) -> State:
        """The states of all methods, and the intersection of their intervals."""
        parts = tuple(method.prepare(graph, region) for method in self.methods)
        shared = set.intersection(*[set(part.intervals) for part in parts])
        intervals = {
            position: (
                _fold(torch.maximum, [part.intervals[position][0] for part in parts]),
                _fold(torch.minimum, [part.intervals[position][1] for part in parts]),
            )
            for position in shared
        }
        return _Met(graph, region, intervals, parts=parts)

    def bound(self, state: State, rows: Tensor) -> Bounds:
        """Meet of the bounds; NaN where any method gives NaN."""
        assert isinstance(state, _Met)
        found = [m.bound(s, rows) for m, s in zip(self.methods, state.parts, strict=True)]
        return Bounds(
            _fold(torch.maximum, [b.lower for b in found]),
            _fold(torch.minimum, [b.upper for b in found]),
        )


@dataclass(frozen=True)
class Chunked(BoundMethod):
    """Another method on at most `batch` inputs and `rows` rows at a time, to bound its memory."""

    method: BoundMethod
    batch: int = 32
    rows: int = 4096

    def __post_init__(self) -> None:
        """Validate."""
        check_methods(self.method)
        count(self.batch, "batch")
        count(self.rows, "rows")

    def under(self, arithmetic: Arithmetic) -> "Chunked | None":
        """The method in pieces in another arithmetic."""
        own = self.method.under(arithmetic)
        return None if own is None else replace(self, method=own)

    @property
    def memory(self) -> int | None:
        """That of the method."""
        return self.method.memory

    def prepare(self, graph: Graph, region: Region) -> State:
        """The states of the pieces, one after the other; intervals joined."""
        pieces = torch.arange(len(region), device=region.center.device).split(self.batch)
        parts = tuple(self.method.prepare(graph, region.select(piece)) for piece in pieces)
        intervals = {
            position: (
                torch.cat([part.intervals[position][0] for part in parts]),
                torch.cat([part.intervals[position][1] for part in parts]),
            )
            for position in parts[0].intervals
        }
        return _Pieces(graph, region, intervals, parts=parts)

    def bound(self, state: State, rows: Tensor) -> Bounds:
        """The bounds of the pieces, put together."""
        assert isinstance(state, _Pieces)
        start, found = 0, []
        for part in state.parts:
            stop = start + len(part.region)
            own = rows if rows.shape[1] == 1 else rows[:, start:stop]
            pieces = [self.method.bound(part, piece) for piece in own.split(self.rows)]
            found.append(
                Bounds(torch.cat([b.lower for b in pieces]), torch.cat([b.upper for b in pieces]))
            )
            start = stop
        return Bounds(
            torch.cat([b.lower for b in found], 1), torch.cat([b.upper for b in found], 1)
        )


def check_methods(*methods: BoundMethod) -> None:
    """Refuse what is no BoundMethod: ArgumentError."""
    strange = [method for method in methods if not isinstance(method, BoundMethod)]
    if strange:
        raise ArgumentError(f"a BoundMethod such as certus.Crown() is wanted, got {strange[0]!r}")


def _fold(meet: Callable[[Tensor, Tensor], Tensor], tensors: list[Tensor]) -> Tensor:
    result = tensors[0]
    for tensor in tensors[1:]:
        result = meet(result, tensor)
    return result
