"""Signs of inner neurons: walks that drop a row as soon as its bound is positive.

The relaxation of a kink at zero depends on the interval of its input only where this holds zero. So one
bound of a neuron, on the side on which it is likely to lie, is enough where it shows the sign; and
a walk shows that at the first node on whose interval the row is positive already. The other bound, and
whole walks, are left to the neurons that stay undecided: their intervals are CROWN's.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from certus.bounding.backward import Query, Rows, Walk
from certus.bounding.base import State
from certus.bounding.windows import Windows
from certus.core import Bounds
from certus.graph.fusion import needed
from certus.graph.graph import Graph, Node
from certus.graph.op import Affine, Input

_LAST = 2  # relaxed nodes, those nearest to the input: farther ones decide next to nothing
_WORTH = 0.9  # share of rows that go on, above which the others are carried along


def signs(state: State, query: Query) -> Bounds:
    """Lower and upper bounds [1, N] of a query; a side that cannot change a known sign may be infinite.

    Rows are windows or [1, N, *shape], each with its own input: `pick` is a tensor then.
    """
    assert query.likely is not None
    likely = query.likely.flatten()
    every = torch.arange(len(likely), device=likely.device)
    first = _one_sided(state, query, every, likely, SignWalk)
    left = (~(first >= 0)).nonzero().flatten()  # NaN too
    second = torch.full_like(first, -float("inf"))
    if len(left):
        found = _one_sided(state, query, left, ~likely[left], Walk)
        second = second.index_copy(0, left, found)
    lower, upper = torch.where(likely, first, second), -torch.where(likely, second, first)
    return Bounds(lower.unsqueeze(0), upper.unsqueeze(0))


def _one_sided(
    state: State, query: Query, index: Tensor, above: Tensor, kind: type[Walk]
) -> Tensor:
    """Lower bounds [N] of some numbers of a query (above) or of their negatives."""
    rows, pick, total = kept(query.rows, index, 1), query.pick, None
    sign = torch.where(above, 1.0, -1.0).to(state.region.center.dtype)
    if isinstance(rows, Windows):
        rows = replace(rows, coefs=rows.coefs * sign.view(-1, 1, 1, 1))
    else:
        rows = rows * sign.view(-1, *[1] * (rows.ndim - 2))
    if query.shift is not None:
        total = query.shift[:, index] * sign
    if isinstance(pick, Tensor) and isinstance(rows, Tensor):
        pick = pick[index]
        if bool(pick[0] == pick[-1]):  # rows of one input share its relaxations
            rows, total = rows.transpose(0, 1), None if total is None else total.T
            pick = slice(int(pick[0]), int(pick[0]) + 1)
    return kind(state, both=False, pick=pick, total=total).run(query.start, rows).flatten()


@dataclass(eq=False)
class SignWalk(Walk):
    """A walk of lower bounds of rows of one input each, which ends for a row once it is positive."""

    found: Tensor = field(default_factory=lambda: torch.empty(0))
    left: Tensor = field(default_factory=lambda: torch.empty(0))  # the rows that go on
    stops: set[int] = field(default_factory=set)  # nodes before which rows are examined

    def run(self, start: int, rows: Rows) -> Tensor:
        """Lower bounds [N]: at least CROWN's where negative, and any that is positive elsewhere."""
        like = rows.coefs if isinstance(rows, Windows) else rows
        count = like.shape[0] * like.shape[1]
        self.found = like.new_full((count,), -float("inf"))
        self.left = torch.arange(count, device=like.device)
        self.stops = stops(self.state.graph, start)
        self._better(super().run(start, rows))
        return self.found

    def _step(self, position: int, node: Node, rows: Rows) -> None:
        if position in self.stops:
            self.pending[position] = rows
            self._examine()
            rows = self.pending.pop(position)
        super()._step(position, node, rows)

    def _examine(self) -> None:
        """Drop the rows whose bound on the intervals of the nodes reached is positive."""
        parts = [self._on_interval(position, rows) for position, rows in self.pending.items()]
        parts += [] if self.total is None else [self.total]
        self._better(torch.stack(parts).sum(0))
        keep = (~(self.found[self.left] >= 0)).nonzero().flatten()
        if len(keep) > _WORTH * len(self.left):
            return
        keep = keep if len(keep) else torch.zeros_like(self.left[:1])  # a walk has rows
        axis = 1 if self.small or isinstance(self.pick, Tensor) else 0
        self.left = self.left[keep]
        self.pending = {at: kept(rows, keep, axis) for at, rows in self.pending.items()}
        if self.total is not None:
            self.total = self.total.index_select(axis, keep)
        if isinstance(self.pick, Tensor):
            self.pick = self.pick[keep]

    def _better(self, bound: Tensor) -> None:
        """Keep the larger bound of every row that is open still; NaN stands unless there is another."""
        old, new = self.found[self.left], bound.flatten()
        better = torch.where((old >= 0) | (old >= new) | (new.isnan() & old.isfinite()), old, new)
        self.found = self.found.index_copy(0, self.left, better)

    def _on_interval(self, position: int, rows: Rows) -> Tensor:
        """Lower bounds of <row, value of a node> on the node's interval."""
        if isinstance(rows, Windows):
            return rows.least(*self.state.intervals[position])
        return self._stop(position, rows)


def kept(rows: Rows, index: Tensor, axis: int) -> Rows:
    """Some of the rows; the axis is that of rows of whole maps."""
    if not isinstance(rows, Windows):
        return rows.index_select(axis, index)
    place = {name: getattr(rows, name)[index] for name in ("batch", "y", "x")}
    return replace(rows, coefs=rows.coefs[:, index], **place)


def stops(graph: Graph, start: int) -> set[int]:
    """The relaxed nodes before which a walk examines its rows; none on a short way.

    Before the first relaxed node that a walk meets its rows say no more than intervals do.
    """
    way = (i for i in sorted(needed(graph, start)))
    relaxed = [i for i in way if not isinstance(graph.nodes[i].op, Affine | Input)]
    return set(relaxed[:-1][:_LAST])
