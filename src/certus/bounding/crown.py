"""CROWN: backward linear bounds (Zhang et al. 2018), and CROWN-IBP (Zhang et al. 2020)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from certus.bounding.backward import lower_bound
from certus.bounding.base import BoundMethod, Interval, State
from certus.bounding.interval import IBP, step
from certus.core import Bounds
from certus.core.numerics import sound
from certus.core.validate import count
from certus.graph import Graph, Node
from certus.graph.activation import Relu
from certus.graph.affine import BatchNorm, Conv, Linear, MatMul, Scale, Shift
from certus.graph.op import Affine
from certus.graph.structural import Pad, Permute, Reshape, Select, Slice
from certus.relax import relaxations
from certus.threats import Box, Region

_ELEMENT = 8  # bytes of one coefficient at most (float64)
_COPIES = 6  # row tensors of one size that are alive at the same time, by measurement


@dataclass(frozen=True, kw_only=True)
class Crown(BoundMethod):
    """Backward bounds with the interval of every inner neuron taken from `intermediate`.

    intermediate None: from CROWN itself, node by node, intersected with interval arithmetic.
    intermediate IBP(): CROWN-IBP, one backward pass in all. memory: bytes that the rows of one
    backward pass over inner neurons may take; more neurons than fit are done in several passes.
    """

    intermediate: BoundMethod | None = None
    memory: int = 2**29

    def __post_init__(self) -> None:
        """Validate."""
        count(self.memory, "memory")

    def prepare(self, graph: Graph, region: Region) -> State:
        """Intervals and relaxations of the inner nodes."""
        if self.intermediate is not None:
            state = self.intermediate.prepare(graph, region)
            lines = {
                position: relaxations[type(node.op)](node.op, *[state.intervals[i] for i in node.inputs])
                for position, node in enumerate(graph.nodes)
                if position > 0 and not isinstance(node.op, Affine)
            }
            return State(graph, region, state.intervals, lines)
        state = State(graph, region, {0: (region.lower, region.upper)}, {})
        for position, node in enumerate(graph.nodes[1:], start=1):
            if not isinstance(node.op, Affine):
                for source in node.inputs:
                    if not _exact(graph, region, source):
                        undecided = _undecided(graph, source, state.intervals[source])
                        state.intervals[source] = self._tighten(state, source, undecided)
                rule = relaxations[type(node.op)]
                state.relaxations[position] = rule(
                    node.op, *[state.intervals[source] for source in node.inputs]
                )
            state.intervals[position] = step(node, state.intervals)
        return state

    def bound(self, state: State, rows: Tensor) -> Bounds:
        """One backward pass each for the lower and the upper bounds."""
        output = state.graph.output
        return Bounds(lower_bound(state, output, rows), -lower_bound(state, output, -rows))

    def _tighten(self, state: State, position: int, undecided: Tensor) -> Interval:
        """The node's interval, met with CROWN's bounds of the undecided neurons [B, numel]."""
        lower, upper = (bound.flatten(1) for bound in state.intervals[position])
        most = int(undecided.sum(1).max())
        if most == 0:
            return state.intervals[position]
        # each input has its own list of neurons; shorter lists end in decided neurons, left as they are
        order = undecided.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
        widest = max(node.numel for node in state.graph.nodes[: position + 1])
        room = max(1, self.memory // (_ELEMENT * _COPIES * widest * len(order)))
        for chosen in order.split(room, dim=1):
            low, high = self._neurons(state, position, chosen)
            wanted = undecided.gather(1, chosen)
            old = lower.gather(1, chosen), upper.gather(1, chosen)
            low = torch.where(wanted, torch.maximum(old[0], low), old[0])
            high = torch.where(wanted, torch.minimum(old[1], high), old[1])
            lower, upper = lower.scatter(1, chosen, low), upper.scatter(1, chosen, high)
        shape = state.intervals[position][0].shape
        return _uncross(lower.view(shape), upper.view(shape))

    def _neurons(self, state: State, position: int, chosen: Tensor) -> Interval:
        """CROWN bounds [B, M] of the neurons chosen [B, M] of one node."""
        batch, many = chosen.shape
        node = state.graph.nodes[position]
        like = state.intervals[position][0]
        rows = torch.zeros(many, batch, node.numel, dtype=like.dtype, device=like.device)
        rows.scatter_(2, chosen.T.unsqueeze(2), 1.0)
        rows = rows.view(many, batch, *node.shape)
        low = lower_bound(state, position, rows)
        return low.T, -lower_bound(state, position, -rows).T


def crown_ibp(memory: int = 2**29) -> Crown:
    """CROWN-IBP: inner intervals by interval arithmetic, one backward pass for the output."""
    return Crown(intermediate=IBP(), memory=memory)


def _uncross(lower: Tensor, upper: Tensor) -> Interval:
    """Two sound bounds may cross by rounding: then both are kept. By more: NaN, which certifies nothing."""
    low, high = torch.minimum(lower, upper), torch.maximum(lower, upper)
    usable = sound(lower, upper)
    nan = torch.full_like(low, float("nan"))
    return torch.where(usable, low, nan), torch.where(usable, high, nan)


def _undecided(graph: Graph, source: int, interval: Interval) -> Tensor:
    """Bool [B, numel]: neurons whose interval can change the relaxation of a node that reads them."""
    lower, upper = (bound.detach().flatten(1) for bound in interval)
    readers = [node.op for node in graph.nodes if source in node.inputs]
    if all(isinstance(op, Relu) for op in readers if not isinstance(op, Affine)):
        return (lower < 0) & (upper > 0)
    return upper > lower


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
