"""The reverse walk: push linear functionals from a node back to the input, concretise there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from certus.bounding import windows
from certus.bounding.alphas import Alphas
from certus.bounding.maps import Maps
from certus.bounding.meter import Meter
from certus.bounding.rows import Rows
from certus.bounding.state import State
from certus.bounding.windows import MOST, Windows
from certus.core import Bounds
from certus.graph.fusion import Patches
from certus.graph.graph import Node
from certus.graph.op import Affine, Input
from certus.relax import Lines


def lower_bound(state: State, start: int, rows: Tensor) -> Tensor:
    """A lower bound [R, B] of <row, value of node `start`> for rows [R, B or 1, *shape].

    Affine operations are pulled back exactly. A non-linear node is replaced by its relaxation where
    the state has one; elsewhere the walk stops there and uses the node's interval.
    Source: Zhang et al. 2018, section 3 (CROWN), on a general graph.
    """
    return Walk(state).run(start, Maps(rows))


@dataclass(frozen=True, eq=False)
class Query:
    """Numbers whose bounds are asked for: <row, value of node `start`> + shift.

    shift: broadcasts against the bounds [R, B], None for zero. likely: where given, bool [1, N] for
    rows of one input each: whether a number is more likely positive; then its sign alone matters.
    """

    start: int
    rows: Rows
    shift: Tensor | None = None
    likely: Tensor | None = None

    def bounds(self, found: Tensor) -> Bounds:
        """Bounds of the numbers from what a walk for both finds: lower bounds of rows and negatives."""
        low, high = found.chunk(2)
        if isinstance(self.rows, Windows):
            low, high = low.reshape(1, -1), high.reshape(1, -1)
        if self.shift is not None:
            low, high = low + self.shift, high - self.shift
        return Bounds(low, -high)


@dataclass(eq=False)
class Walk:
    """One walk from a node to the input; its rows are all windows at first, or maps throughout.

    both: at the first non-linear node rows are joined by their negatives, so that the second half
    of the result is the lower bound of the negatives. alphas: lower slopes of the rows' own. meter:
    what roundings are charged to. total: what the rows have met before the walk.
    """

    state: State
    both: bool = False
    alphas: Alphas | None = None
    meter: Meter = field(default_factory=Meter)
    total: Tensor | None = None
    pending: dict[int, Rows] = field(
        default_factory=dict, init=False
    )  # rows at nodes not yet passed

    def run(self, start: int, rows: Rows) -> Tensor:
        """Lower bounds [R, B], or [2 R, B] for both."""
        for _ in self.steps(start, rows):
            pass
        assert self.total is not None, "a walk always ends at the input or at an interval"
        width = rows.width(len(self.state.region))
        return self.meter.result(self.total.expand(-1, width))

    def steps(self, start: int, rows: Rows) -> Iterator[int]:
        """Walk, and stop before each node that is passed, at its position."""
        self._send([start], [rows])
        apart = self.both
        for position in range(start, -1, -1):
            if position not in self.pending:
                continue
            node = self.state.graph.nodes[position]
            if apart and (not isinstance(node.op, Affine) or self._on_patches(position, node)):
                self._double()
                apart = False
            if not self._stays(position, node):
                self._leave_windows()
            yield position
            self._step(position, node)
        if apart:  # nothing depended on the input
            self._double()

    def _step(self, position: int, node: Node) -> None:
        rows = self.pending.pop(position)
        self.meter.enter(position, node, rows)
        pulled, part = self._passed(position, node, rows)
        if part is not None:
            self.total = part if self.total is None else self.total + part
        self._send(node.inputs, pulled)
        if part is not None and self.total is not None:
            self.meter.added(self.total)

    def _passed(
        self, position: int, node: Node, rows: Rows
    ) -> tuple[Sequence[Rows], Tensor | None]:
        """The rows on the inputs of a node, and the offset that the node adds."""
        region = self.state.region
        if isinstance(node.op, Input):
            return (), self.meter.range(rows, region, node.shape)
        if isinstance(node.op, Patches) and self._on_patches(position, node):
            assert isinstance(rows, Maps)
            return (), rows.on_patches(region, node.op)
        if isinstance(node.op, Affine):
            return rows.affine(self.state.graph, node)
        relaxation, slope = self.state.relaxations.get(position), None
        if relaxation is None:
            return (), rows.least(self.state.intervals[position])
        if self.alphas is not None and isinstance(relaxation, Lines):
            slope = self.alphas.of(position, relaxation, rows)
        pulled, offset = rows.relaxed(relaxation, slope)
        self.meter.relaxed(position, offset)
        return pulled, offset

    def _send(self, positions: Sequence[int], parts: Sequence[Rows]) -> None:
        """Add rows to what these nodes have got already."""
        for position, part in zip(positions, parts, strict=False):
            held, rows = self.pending.get(position), part
            self.meter.meet(position, held, rows)
            node = self.state.graph.nodes[position]
            if isinstance(held, Windows) and isinstance(rows, Windows) and held.fits(rows):
                rows = held + rows
            elif held is not None:  # windows that came at different paces have no common window
                rows = _whole(held, node) + _whole(rows, node).at(node)
            elif isinstance(rows, Maps):
                rows = rows.at(node)
            self.pending[position] = rows
            if len({type(rows) for rows in self.pending.values()}) > 1:
                self._leave_windows()

    def _on_patches(self, position: int, node: Node) -> bool:
        """Whether all that is left of the walk are patches of the input, which the region can pick."""
        last = node.inputs == (0,) and not self.pending.keys() - {position}
        if not (last and isinstance(node.op, Patches)):
            return False
        return self.state.region.picked(lambda t: t[:0]) is not None

    def _double(self) -> None:
        """Join every row by its negative."""
        self.pending = {at: rows.doubled() for at, rows in self.pending.items()}
        if self.total is not None:
            self.total = torch.cat([self.total, -self.total])
        self.meter.double()

    def _stays(self, position: int, node: Node) -> bool:
        """Whether rows may stay what they are: windows where they still pay, and have a rule."""
        rows, last = self.pending[position], isinstance(node.op, Input)
        if not isinstance(rows, Windows):
            return True
        most = MOST if rows.own is not None and not last else 1
        if rows.share(node.shape) > most:
            return False
        if isinstance(node.op, Affine):
            return windows.able(node, self.state.graph.shapes(node))
        if last:
            return self.state.region.picked(lambda t: t[:0]) is not None
        return isinstance(self.state.relaxations.get(position), Lines)

    def _leave_windows(self) -> None:
        """From here on whole maps, everywhere at once."""
        nodes = self.state.graph.nodes
        self.pending = {at: _whole(rows, nodes[at]) for at, rows in self.pending.items()}


def _whole(rows: Rows, node: Node) -> Maps:
    if isinstance(rows, Windows):
        return rows.whole(node.shape)
    assert isinstance(rows, Maps)
    return rows
