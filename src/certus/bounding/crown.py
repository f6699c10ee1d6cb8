"""CROWN: backward linear bounds (Zhang et al. 2018), and CROWN-IBP (Zhang et al. 2020)."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from certus.bounding.arithmetic import Arithmetic, arithmetic
from certus.bounding.base import BoundMethod, check_memory
from certus.bounding.budget import elements, widest
from certus.bounding.interval import IBP, affine_in_input
from certus.bounding.maps import Maps
from certus.bounding.search import BoundsOf, tightened
from certus.bounding.signs import stops
from certus.bounding.state import State
from certus.core import ArgumentError, Bounds, Rules
from certus.graph import Graph
from certus.graph.activation import LeakyRelu, Relu
from certus.graph.affine import BatchNorm, Conv, Linear, MatMul, Scale, Shift
from certus.graph.fusion import needed
from certus.graph.op import Affine
from certus.graph.structural import Pad, Permute, Reshape, Select, Slice
from certus.relax import Interval, relaxations
from certus.threats import Box, Region


@dataclass(frozen=True, kw_only=True)
class Crown(BoundMethod):
    """Backward bounds with the interval of every inner neuron taken from `intermediate`.

    intermediate None: from CROWN itself, node by node, intersected with interval arithmetic.
    intermediate IBP(): CROWN-IBP, one backward pass in all. slopes: the table of relaxations.
    memory: bytes that the rows of one backward pass may take, None for half of what is free; what
    does not fit is done in pieces.
    rigorous: bounds hold for the network in real arithmetic with its stored weights, and for every
    float evaluation of the graph's operations in the dtype of the region, whatever the order of
    summation, device or batch. Each step is widened by Higham's gamma_n times absolute values, which
    rows weigh at their node (`rigorous.py`). Assumed: IEEE rounding to nearest, errors of tanh and
    sigmoid within eight times those measured in the engine that is the original (docs/rounding.md), of
    reciprocal roots within 4 ulp, and sums of products (no Winograd or Fourier convolution, no reduced
    precision). Operations without a rigorous rule raise UnsupportedError. An `Arithmetic` in place of
    True is computed in instead.
    """

    intermediate: BoundMethod | None = None
    slopes: Rules = relaxations
    memory: int | None = None
    rigorous: bool | Arithmetic = False

    def __post_init__(self) -> None:
        """Validate."""
        check_memory(self.memory)
        inner = self.intermediate
        if inner is not None and not isinstance(inner, BoundMethod):
            raise ArgumentError(f"intermediate must be a BoundMethod or None, got {inner!r}")
        if not isinstance(self.slopes, Rules):
            raise ArgumentError(f"slopes must be a table of relaxations, got {self.slopes!r}")
        if self.rigorous and inner is not None and not getattr(inner, "rigorous", False):
            raise ArgumentError("rigorous bounds need an intermediate method with rigorous=True")

    def prepare(self, graph: Graph, region: Region) -> State:
        """Intervals of the inner nodes."""
        with self._arithmetic.context(region.center):
            return self._prepare(self._arithmetic.graph(graph), region)

    def _prepare(self, graph: Graph, region: Region) -> State:
        how, wanted = self._arithmetic, needed(graph)
        state = how.state(graph, region, self.slopes)
        if self.intermediate is not None:
            state.intervals.update(self.intermediate.prepare(graph, region).intervals)
            return state
        for position, node in enumerate(graph.nodes):
            if position not in wanted or position == 0:
                continue
            if not isinstance(node.op, Affine):
                for source in dict.fromkeys(node.inputs):
                    state.intervals[source] = self._tighten(state, source)
            state.intervals[position] = how.step(graph, node, state.intervals)
        return state

    def bound(self, state: State, rows: Tensor) -> Bounds:
        """Lower and upper bounds in one backward pass."""
        raised = self._arithmetic.raised
        low, high = self._walk(state, rows, both=True).chunk(2)
        return Bounds(raised(state, rows, low), -raised(state, -rows, high))

    def lower(self, state: State, rows: Tensor) -> Tensor:
        """Lower bounds alone, at half the price."""
        return self._arithmetic.raised(state, rows, self._walk(state, rows, both=False))

    def _walk(self, state: State, rows: Tensor, both: bool) -> Tensor:
        with self._arithmetic.context(rows):
            return self._in_pieces(state, rows, both, lambda own, _: self._run(state, own, both))

    def _in_pieces(
        self, state: State, rows: Tensor, both: bool, run: Callable[[Maps, slice], Tensor]
    ) -> Tensor:
        """What `run` finds for pieces of the inputs and, in each, pieces of the rows, put together."""
        output = state.graph.output
        room = self._room(rows) // widest(state.graph, output) // (2 if both else 1)
        batch = len(state.region)
        inputs = min(batch, max(1, room // len(rows)))
        many = len(rows) if inputs > 1 else min(len(rows), max(1, room))
        columns = []
        for first in range(0, batch, inputs):
            pick = slice(first, min(first + inputs, batch))
            own = rows if rows.shape[1] == 1 else rows[:, pick]
            found = [
                run(Maps(own[at], None if inputs == batch else pick), at)
                for at in (slice(i, i + many) for i in range(0, len(rows), many))
            ]
            halves = [part.chunk(2 if both else 1) for part in found]
            columns.append(torch.cat([half for side in zip(*halves, strict=True) for half in side]))
        return columns[0] if len(columns) == 1 else torch.cat(columns, 1)

    def _run(self, state: State, rows: Maps, both: bool) -> Tensor:
        """One walk for some rows of the specification and some inputs: [R, B], or [2 R, B] for both."""
        return self._arithmetic.walk(state, both).run(state.graph.output, rows)

    def under(self, arithmetic: Arithmetic) -> "Crown | None":
        """The same walks and inner method in another arithmetic."""
        inner = self.intermediate and self.intermediate.under(arithmetic)
        if inner is None and self.intermediate is not None:
            return None
        return replace(self, intermediate=inner, rigorous=arithmetic)

    @property
    def _arithmetic(self) -> Arithmetic:
        return arithmetic(self.rigorous)

    def _room(self, like: Tensor, ending: bool = False) -> int:
        return elements(like.device, like.dtype, self.memory, ending)

    def _tighten(self, state: State, position: int) -> Interval:
        """The node's interval, met with CROWN's bounds of the neurons that matter."""
        graph = state.graph
        signs = not self.rigorous and isinstance(state.region, Box)
        signs = signs and _kinks_alone(graph, position) and bool(stops(graph, position))
        return self._search(state, position, self._arithmetic.answer, signs)

    def _search(
        self, state: State, position: int, bounds_of: BoundsOf, signs: bool = False
    ) -> Interval:
        """The node's interval, met with the bounds that a walk gives to undecided neurons."""
        interval = state.intervals[position]
        if _exact(state.graph, state.region, position):
            return interval
        undecided = _undecided(state.graph, position, interval)
        if not isinstance(state.region, Box) and affine_in_input(state.graph, position):
            undecided = torch.ones_like(undecided)  # intervals know the bounding box alone
        room = self._room(interval[0], ending=signs)
        found = tightened(state, position, undecided, bounds_of, room, signs)
        return self._arithmetic.met(state, position, interval, found)


def crown_ibp(memory: int | None = None, rigorous: bool = False) -> Crown:
    """CROWN-IBP: inner intervals by interval arithmetic, one backward pass for the output."""
    return Crown(intermediate=IBP(rigorous), memory=memory, rigorous=rigorous)


def _undecided(graph: Graph, source: int, interval: Interval) -> Tensor:
    """Bool [B, numel]: neurons whose interval can change the relaxation of a node that reads them."""
    lower, upper = (bound.detach().reshape(len(bound), -1) for bound in interval)
    return (lower < 0) & (upper > 0) if _kinks_alone(graph, source) else upper > lower


def _kinks_alone(graph: Graph, source: int) -> bool:
    """Whether all that is relaxed in the readers of a node is a kink at zero: signs alone matter."""
    readers = [node.op for node in graph.nodes if source in node.inputs]
    return all(isinstance(op, Relu | LeakyRelu) for op in readers if not isinstance(op, Affine))


_ONE_TO_ONE = (Scale, Shift, BatchNorm, Reshape, Permute, Slice, Select, Pad)


def _exact(graph: Graph, region: Region, position: int) -> bool:
    """Whether interval arithmetic is already exact here: one mixing layer after a box."""
    if not isinstance(region, Box):
        return False
    mixing = 0
    while position != 0:
        op = graph.nodes[position].op
        if isinstance(op, Linear | Conv | MatMul):
            mixing += 1
        elif not isinstance(op, _ONE_TO_ONE):
            return False
        position = graph.nodes[position].inputs[0]
    return mixing <= 1
