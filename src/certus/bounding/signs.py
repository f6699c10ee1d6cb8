"""Signs of inner neurons: walks that drop a row as soon as its bound is positive.

The relaxation of a kink at zero depends on the interval of its input only where this holds zero. So one
bound of a neuron, on the side on which it is likely to lie, is enough where it shows the sign; and
a walk shows that at the first node on whose interval the row is positive already. The other bound, and
whole walks, are left to the neurons that stay undecided: their intervals are CROWN's.
"""

from dataclasses import replace

import torch
from torch import Tensor

from certus.bounding.backward import Query, Walk
from certus.bounding.maps import Maps
from certus.bounding.rows import Rows
from certus.bounding.state import State
from certus.bounding.windows import Windows
from certus.core import Bounds
from certus.graph.fusion import needed
from certus.graph.graph import Graph
from certus.graph.op import Affine, Input

_LAST = 2  # relaxed nodes, those nearest to the input: farther ones decide next to nothing
_WORTH = 0.9  # share of rows that go on, above which the others are carried along


def signs(state: State, query: Query) -> Bounds:
    """Lower and upper bounds [1, N] of a query; a side that cannot change a known sign may be infinite.

    Rows are windows or maps [1, N, *shape], each with its own input: `pick` is a tensor then.
    """
    assert query.likely is not None
    likely = query.likely.flatten()
    every = torch.arange(len(likely), device=likely.device)
    first = sign_walk(state, query.start, *_one_sided(state, query, every, likely))
    left = (~(first >= 0)).nonzero().flatten()  # NaN too
    second = torch.full_like(first, -float("inf"))
    if len(left):
        rows, total = _one_sided(state, query, left, ~likely[left])
        found = Walk(state, total=total).run(query.start, rows).flatten()
        second = second.index_copy(0, left, found)
    lower, upper = torch.where(likely, first, second), -torch.where(likely, second, first)
    return Bounds(lower.unsqueeze(0), upper.unsqueeze(0))


def _one_sided(
    state: State, query: Query, index: Tensor, above: Tensor
) -> tuple[Rows, Tensor | None]:
    """Rows for the lower bounds of some numbers of a query (above) or of their negatives, and a total."""
    rows, total = kept(query.rows, index), None
    sign = torch.where(above, 1.0, -1.0).to(state.region.center.dtype)
    rows = replace(rows, coefs=rows.coefs * sign.view(-1, *[1] * (rows.coefs.ndim - 2)))
    if query.shift is not None:
        total = query.shift[:, index] * sign
    # rows of one input share its relaxations
    pick = rows.pick if isinstance(rows, Maps) else None
    if isinstance(pick, Tensor) and bool(pick[0] == pick[-1]):
        first = int(pick[0])
        total = None if total is None else total.T
        rows = Maps(rows.coefs.transpose(0, 1), slice(first, first + 1))
    return rows, total


def sign_walk(state: State, start: int, rows: Rows, total: Tensor | None) -> Tensor:
    """Lower bounds [N] of rows of one input each; a row ends where it is shown to be positive.

    They are at least CROWN's where negative, and any that is positive elsewhere.
    """
    walk = Walk(state, total=total)
    found = rows.coefs.new_full((rows.coefs.shape[0] * rows.coefs.shape[1],), -float("inf"))
    left, places = torch.arange(len(found), device=found.device), stops(state.graph, start)
    for position in walk.steps(start, rows):
        if position in places:
            found = _better(found, left, _on_intervals(walk))
            keep = (~(found[left] >= 0)).nonzero().flatten()
            if len(keep) <= _WORTH * len(left):
                keep = keep if len(keep) else torch.zeros_like(left[:1])  # a walk has rows
                left = left[keep]
                _drop(walk, keep)
    assert walk.total is not None
    return _better(found, left, walk.total.expand(-1, len(left) // len(walk.total)))


def _on_intervals(walk: Walk) -> Tensor:
    """Lower bounds of the rows on the intervals of the nodes that they have reached."""
    parts = [rows.least(walk.state.intervals[at]) for at, rows in walk.pending.items()]
    parts += [] if walk.total is None else [walk.total]
    return torch.stack(parts).sum(0)


def _better(found: Tensor, left: Tensor, bound: Tensor) -> Tensor:
    """Keep the larger bound of every row that is open still; NaN stands unless there is another."""
    old, new = found[left], bound.flatten()
    better = torch.where((old >= 0) | (old >= new) | (new.isnan() & old.isfinite()), old, new)
    return found.index_copy(0, left, better)


def _drop(walk: Walk, keep: Tensor) -> None:
    """Leave only some of the rows of a walk."""
    if walk.total is not None:
        walk.total = walk.total.index_select(int(len(walk.total) == 1), keep)
    walk.pending = {at: kept(rows, keep) for at, rows in walk.pending.items()}


def kept(rows: Rows, index: Tensor) -> Windows | Maps:
    """Some of the rows."""
    if isinstance(rows, Windows):
        place = {name: getattr(rows, name)[index] for name in ("batch", "y", "x")}
        return replace(rows, coefs=rows.coefs[:, index], **place)
    assert isinstance(rows, Maps)
    if not isinstance(rows.pick, Tensor):
        return replace(rows, coefs=rows.coefs.index_select(0, index))
    return replace(rows, coefs=rows.coefs.index_select(1, index), pick=rows.pick[index])


def stops(graph: Graph, start: int) -> set[int]:
    """The relaxed nodes before which a walk examines its rows; none on a short way.

    Before the first relaxed node that a walk meets its rows say no more than intervals do.
    """
    way = (i for i in sorted(needed(graph, start)))
    relaxed = [i for i in way if not isinstance(graph.nodes[i].op, Affine | Input)]
    return set(relaxed[:-1][:_LAST])
