"""Bounds of inner neurons, each by a walk of its own: in windows where these are small."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from certus.bounding import windows
from certus.bounding.backward import Rows
from certus.bounding.base import State
from certus.bounding.budget import widest, widest_window
from certus.core import Bounds
from certus.core.numerics import sound
from certus.graph.affine import Linear
from certus.relax import Interval

_ALONE = 64  # rows of an input that are worth a walk of their own

# (flat positions in [B * numel], lower bounds, upper bounds) of some neurons
Found = tuple[Tensor, Tensor, Tensor]
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
    parts = list(search(state, position, wanted, bounds_of, room))
    where, low, high = (torch.cat(side) for side in zip(*parts, strict=True))
    lower, upper = (bound.flatten() for bound in interval)
    lower = lower.index_copy(0, where, torch.maximum(lower[where], low))
    upper = upper.index_copy(0, where, torch.minimum(upper[where], high))
    shape = interval[0].shape
    return _uncross(lower.view(shape), upper.view(shape))


def _by_windows(
    state: State, position: int, wanted: Tensor, bounds_of: BoundsOf, room: int
) -> Iterator[Found]:
    """Every wanted neuron of every input for itself."""
    node, like = state.graph.nodes[position], state.intervals[position][0]
    picks = state.region.picked(lambda t: t[:0]) is not None
    rows_at_once = max(1, room // (2 * widest_window(state.graph, position, picks)))
    padded: windows.Padded = {}
    for batch, neuron in _pairs(wanted, rows_at_once):
        rows = windows.start(node, neuron, batch, like, padded)
        found = bounds_of(state, position, rows, None)
        yield batch * node.numel + neuron, found.lower.flatten(), found.upper.flatten()


def _by_maps(
    state: State, position: int, wanted: Tensor, bounds_of: BoundsOf, room: int
) -> Iterator[Found]:
    """Neurons that are wanted for some input of a group, for the whole group."""
    node, like = state.graph.nodes[position], state.intervals[position][0]
    rows_at_once = max(1, room // (2 * widest(state.graph, position)))
    most, batch = int(wanted.sum(1).max()), len(wanted)
    inputs = min(batch, max(1, rows_at_once // most))
    for first in range(0, batch, inputs):
        group = torch.arange(first, min(first + inputs, batch), device=like.device)
        own = wanted[group]
        pick = slice(first, first + len(group)) if len(group) < batch else None
        wanted_here = own.any(0).nonzero().flatten()
        if not len(wanted_here):  # splitting nothing gives one empty piece
            continue
        for chosen in wanted_here.split(max(1, rows_at_once // len(group))):
            found = _neurons(state, position, chosen, pick, bounds_of)
            marked = own[:, chosen].T
            where = group * node.numel + chosen.unsqueeze(1)
            yield where[marked], found.lower[marked], found.upper[marked]


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
