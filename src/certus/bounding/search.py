"""Bounds of inner neurons, each by a walk of its own: in windows where these are small."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from certus.bounding import windows
from certus.bounding.backward import Rows
from certus.bounding.base import State
from certus.bounding.budget import keep_freed_memory, widest, widest_window
from certus.bounding.parallel import side_by_side
from certus.core import Bounds
from certus.core.numerics import sound
from certus.graph.affine import Linear
from certus.relax import Interval

_WORTH = 32  # rows that are worth a thread
_ALONE = 64  # rows of an input that are worth a walk of their own

# (flat positions in [B * numel], lower bounds, upper bounds) of some neurons
Found = tuple[Tensor, Tensor, Tensor]
Task = Callable[[], Found]
# (state, position, rows, inputs) -> lower and upper bounds
BoundsOf = Callable[[State, int, Rows, slice | None], Bounds]


def tightened(
    state: State, position: int, wanted: Tensor, bounds_of: BoundsOf, room: int
) -> Interval:
    """A node's interval, met with the bounds that walks give to the neurons wanted [B, numel].

    room: elements that one tensor of rows may have.
    """
    node = state.graph.nodes[position]
    interval = state.intervals[position]
    if not bool(wanted.any()):
        return interval
    small = windows.able(node, state.graph.shapes(node))
    search = _by_windows if small else _by_maps
    keep_freed_memory(interval[0].device)
    tasks = list(search(state, position, wanted, bounds_of, room))
    parts = side_by_side(tasks, interval[0].device)
    where, low, high = (torch.cat(side) for side in zip(*parts, strict=True))
    lower, upper = (bound.flatten() for bound in interval)
    lower = lower.index_copy(0, where, torch.maximum(lower[where], low))
    upper = upper.index_copy(0, where, torch.minimum(upper[where], high))
    shape = interval[0].shape
    return _uncross(lower.view(shape), upper.view(shape))


def _by_windows(
    state: State, position: int, wanted: Tensor, bounds_of: BoundsOf, room: int
) -> Iterator[Task]:
    """Every wanted neuron of every input for itself."""
    node, like = state.graph.nodes[position], state.intervals[position][0]
    picks = state.region.picked(lambda t: t[:0]) is not None
    rows_at_once = max(1, room // (2 * widest_window(state.graph, position, picks)))
    padded: windows.Padded = {}

    def bound(batch: Tensor, neuron: Tensor) -> Found:
        rows = windows.start(node, neuron, batch, like, padded)
        found = bounds_of(state, position, rows, None)
        return batch * node.numel + neuron, found.lower.flatten(), found.upper.flatten()

    for batch, neuron in _pairs(wanted, _shared(rows_at_once, int(wanted.sum()))):
        yield partial(bound, batch, neuron)


def _by_maps(
    state: State, position: int, wanted: Tensor, bounds_of: BoundsOf, room: int
) -> Iterator[Task]:
    """Neurons that are wanted for some input of a group, for the whole group."""
    node, like = state.graph.nodes[position], state.intervals[position][0]
    rows_at_once = max(1, room // (2 * widest(state.graph, position)))
    most, batch = int(wanted.sum(1).max()), len(wanted)
    inputs = min(batch, max(1, rows_at_once // most))

    def bound(chosen: Tensor, group: Tensor, pick: slice | None) -> Found:
        found = _neurons(state, position, chosen, pick, bounds_of)
        marked = wanted[group][:, chosen].T
        where = group * node.numel + chosen.unsqueeze(1)
        return where[marked], found.lower[marked], found.upper[marked]

    for first in range(0, batch, inputs):
        group = torch.arange(first, min(first + inputs, batch), device=like.device)
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


def _neurons(
    state: State, position: int, chosen: Tensor, pick: slice | None, bounds_of: BoundsOf
) -> Bounds:
    """Bounds [M, group] of some neurons [M] of a node for a group of inputs."""
    node, like = state.graph.nodes[position], state.intervals[position][0]
    if isinstance(node.op, Linear) and len(node.shape) == 1:  # rows of the weight, no product
        rows = node.op.weight[chosen].unsqueeze(1)
        found = bounds_of(state, node.inputs[0], rows, pick)
        if node.op.bias is None:
            return found
        shift = node.op.bias[chosen].unsqueeze(1)
        return Bounds(found.lower + shift, found.upper + shift)
    rows = torch.zeros(len(chosen), node.numel, dtype=like.dtype, device=like.device)
    rows.scatter_(1, chosen.unsqueeze(1), 1.0)
    return bounds_of(state, position, rows.view(len(chosen), 1, *node.shape), pick)


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
