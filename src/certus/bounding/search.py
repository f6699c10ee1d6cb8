"""Bounds of inner neurons, each by a walk of its own: in windows where these are small."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from certus.bounding import windows
from certus.bounding.backward import Query
from certus.bounding.budget import keep_freed_memory, widest, widest_window
from certus.bounding.maps import Maps
from certus.bounding.parallel import side_by_side
from certus.bounding.state import State
from certus.core import Bounds
from certus.core.numerics import sound
from certus.graph.affine import Linear
from certus.graph.graph import Node
from certus.relax import Interval

_WORTH = 32  # rows that are worth a thread
_ALONE = 64  # rows of an input that are worth a walk of their own

# (flat positions in [B * numel], lower bounds, upper bounds) of some neurons
Found = tuple[Tensor, Tensor, Tensor]
Task = Callable[[], Found]
# lower and upper bounds of some numbers
BoundsOf = Callable[[State, Query], Bounds]


@dataclass(frozen=True, eq=False)
class _Search:
    """Bounds of the neurons `wanted` [B, numel] of a node; likely [B, numel]: see `Query`."""

    state: State
    position: int
    wanted: Tensor
    likely: Tensor | None
    bounds_of: BoundsOf
    room: int

    @property
    def node(self) -> Node:
        """The node whose neurons are bounded."""
        return self.state.graph.nodes[self.position]

    def rows_at_once(self, width: int) -> int:
        """Neurons whose rows of `width` elements one walk may carry, each with its negative."""
        return max(1, self.room // 2 // width)


def tightened(
    state: State,
    position: int,
    wanted: Tensor,
    bounds_of: BoundsOf,
    room: int,
    signs: bool = False,
) -> Interval:
    """A node's interval, met with the bounds that walks give to the neurons wanted [B, numel].

    room: elements that one tensor of rows may have. signs: of a neuron whose sign turns out to be known
    nothing more is asked.
    """
    node = state.graph.nodes[position]
    interval = state.intervals[position]
    if not bool(wanted.any()):
        return interval
    likely = (interval[0] + interval[1]).reshape(wanted.shape) > 0 if signs else None
    search = _Search(state, position, wanted, likely, bounds_of, room)
    small = windows.able(node, state.graph.shapes(node))
    keep_freed_memory(interval[0].device)
    tasks = list(_by_pairs(search, small) if small or signs else _by_maps(search))
    parts = side_by_side(tasks, interval[0].device)
    where, low, high = (torch.cat(side) for side in zip(*parts, strict=True))
    lower, upper = (bound.flatten() for bound in interval)
    lower = lower.index_copy(0, where, torch.maximum(lower[where], low))
    upper = upper.index_copy(0, where, torch.minimum(upper[where], high))
    shape = interval[0].shape
    return _uncross(lower.view(shape), upper.view(shape))


def _by_pairs(search: _Search, small: bool) -> Iterator[Task]:
    """Every wanted neuron of every input for itself; small: in windows."""
    state, position, node = search.state, search.position, search.node
    like = state.intervals[position][0]
    picks = state.region.picked(lambda t: t[:0]) is not None
    width = widest_window(state.graph, position, picks) if small else widest(state.graph, position)
    padded: windows.Padded = {}

    def bound(batch: Tensor, neuron: Tensor) -> Found:
        likely = None if search.likely is None else search.likely[batch, neuron].unsqueeze(0)
        if small:
            query = Query(position, windows.start(node, neuron, batch, like, padded))
        else:
            start, rows, shift = _neurons(search, neuron)
            own = Maps(rows.transpose(0, 1), batch)
            query = Query(start, own, None if shift is None else shift.T)
        query = replace(query, likely=likely)
        found = search.bounds_of(state, query)
        return batch * node.numel + neuron, found.lower.flatten(), found.upper.flatten()

    many = _shared(search.rows_at_once(width), int(search.wanted.sum()))
    for batch, neuron in _pairs(search.wanted, many):
        yield partial(bound, batch, neuron)


def _by_maps(search: _Search) -> Iterator[Task]:
    """Neurons that are wanted for some input of a group, for the whole group, as whole maps."""
    node, wanted, batch = search.node, search.wanted, len(search.wanted)
    rows_at_once = search.rows_at_once(widest(search.state.graph, search.position))
    most = int(wanted.sum(1).max())
    inputs = 1 if most >= _ALONE else min(batch, max(1, rows_at_once // most))

    def bound(chosen: Tensor, group: Tensor, pick: slice | None) -> Found:
        start, rows, shift = _neurons(search, chosen)
        found = search.bounds_of(search.state, Query(start, Maps(rows, pick), shift))
        marked = wanted[group][:, chosen].T
        where = group * node.numel + chosen.unsqueeze(1)
        return where[marked], found.lower[marked], found.upper[marked]

    for first in range(0, batch, inputs):
        group = torch.arange(first, min(first + inputs, batch), device=wanted.device)
        pick = slice(first, first + len(group)) if len(group) < batch else None
        here = wanted[group].any(0).nonzero().flatten()
        if not len(here):  # splitting nothing gives one empty piece
            continue
        many = max(1, rows_at_once // len(group))
        for chosen in here.split(many if inputs < batch else _shared(many, len(here))):
            yield partial(bound, chosen, group, pick)


def _shared(many: int, rows: int) -> int:
    """Rows of one walk, so that there is work for every thread."""
    threads = torch.get_num_threads()
    return many if rows < _WORTH * threads else min(many, -(-rows // threads))


def _neurons(search: _Search, chosen: Tensor) -> tuple[int, Tensor, Tensor | None]:
    """For some neurons [M] of a node: a start, rows [M, 1, *shape] that inputs share, a shift [M, 1]."""
    node, like = search.node, search.state.intervals[search.position][0]
    if isinstance(node.op, Linear) and len(node.shape) == 1:  # rows of the weight, no product
        rows = node.op.weight[chosen].unsqueeze(1)
        shift = None if node.op.bias is None else node.op.bias[chosen].unsqueeze(1)
        return node.inputs[0], rows, shift
    rows = torch.zeros(len(chosen), node.numel, dtype=like.dtype, device=like.device)
    rows.scatter_(1, chosen.unsqueeze(1), 1.0)
    return search.position, rows.view(len(chosen), 1, *node.shape), None


def _pairs(undecided: Tensor, room: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(inputs, neurons) of the marked entries of [B, numel], at most `room` at a time.

    Every input by itself where it fills a group alone: its rows then share relaxations.
    """
    batch, neuron = undecided.nonzero(as_tuple=True)
    counts = undecided.sum(1)
    alone = len(counts) * _ALONE <= len(batch)
    groups = counts[counts > 0].tolist() if alone else [len(batch)]
    for own, neurons in zip(batch.split(groups), neuron.split(groups), strict=True):
        yield from zip(own.split(room), neurons.split(room), strict=True)


def _uncross(lower: Tensor, upper: Tensor) -> Interval:
    """Two sound bounds may cross by rounding: then both are kept. By more: NaN, which certifies nothing."""
    low, high = torch.minimum(lower, upper), torch.maximum(lower, upper)
    usable = sound(lower, upper)
    nan = torch.full_like(low, float("nan"))
    return torch.where(usable, low, nan), torch.where(usable, high, nan)
