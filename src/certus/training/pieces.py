"""Sums over a batch in pieces: the gradient of each is taken before the next one is evaluated.

What a backward walk records grows with rows times inputs; so only one piece of it exists at a time.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from certus.bounding.budget import elements, widest
from certus.bounding.state import State
from certus.graph.fusion import needed
from certus.graph.op import Affine, Input, Op, tensors_of
from certus.relax import Interval, relaxations

_CACHED = 2**23  # elements of one tensor of rows on a CPU: glibc keeps what such tensors leave

# (state of some inputs with relaxations, [B, ...] tensors of these inputs, which) -> 0-dim
Value = Callable[[State, Sequence[Tensor], slice], Tensor]


def sum_over_inputs(value: Value, state: State, beside: Sequence[Tensor], rows: int) -> Tensor:
    """The sum of value(part of the state, part of `beside`, which) over pieces of the batch, 0-dim.

    state: of interval arithmetic; its parts get the relaxations of `certus.relax`. beside: further
    tensors [B, ...]. rows: of each input's walk. Differentiable once, with respect to the parameters
    and intervals of the state and what is beside; where anything else records gradients (the region,
    as for a learned radius) the batch is one piece that autograd treats as any other.
    """
    batch = len(state.region)
    leaves = _Leaves.of(state, beside)
    recorded = torch.is_grad_enabled() and any(t.requires_grad for t in leaves.tensors)
    if not recorded or not leaves.complete(state):
        return value(
            leaves.rebuilt(state, leaves.tensors, slice(0, batch)), beside, slice(0, batch)
        )

    def part(tensors: Sequence[Tensor], pick: slice) -> Tensor:
        own = leaves.rebuilt(state, tensors, pick)
        return value(own, tensors[len(tensors) - len(beside) :], pick)

    picks = list(_picks(batch, _inputs_at_once(state, rows)))
    total: Tensor = _Sum.apply(part, picks, leaves.shared, *leaves.tensors)
    return total


@dataclass(frozen=True, eq=False)
class _Leaves:
    """What a walk over a state reads: parameters, then intervals and what is beside, by input."""

    names: list[tuple[int, str]]  # node and field of each parameter
    sources: list[int]  # nodes of the intervals
    tensors: list[Tensor]

    @staticmethod
    def of(state: State, beside: Sequence[Tensor]) -> "_Leaves":
        nodes = state.graph.nodes
        wanted = sorted(needed(state.graph))
        found = {
            (i, name): t for i in wanted for name, t in tensors_of(nodes[i].op) if t.requires_grad
        }
        sources = sorted({s for i in wanted if _curved(nodes[i].op) for s in nodes[i].inputs})
        ends = [end for s in sources for end in state.intervals[s]]
        return _Leaves(list(found), sources, [*found.values(), *ends, *beside])

    @property
    def shared(self) -> int:
        """How many of the tensors all inputs share."""
        return len(self.names)

    def complete(self, state: State) -> bool:
        """Whether gradients can come from nothing else."""
        region = state.region
        inside = (value for node in state.graph.nodes for value in vars(node.op).values())
        return not any(
            t.requires_grad for t in (region.lower, region.upper, region.center)
        ) and not any(
            isinstance(value, list | tuple | dict) and any(isinstance(v, Tensor) for v in value)
            for value in inside
        )

    def rebuilt(self, state: State, tensors: Sequence[Tensor], pick: slice) -> State:
        """The state of the inputs `pick`, whose tensors these are."""
        ops: dict[int, Op] = {}
        for (i, name), t in zip(self.names, tensors, strict=False):
            ops[i] = replace(ops.get(i, state.graph.nodes[i].op), **{name: t})
        graph = state.graph.substituted(ops)
        ends = iter(tensors[self.shared :])
        intervals: dict[int, Interval] = {s: (next(ends), next(ends)) for s in self.sources}
        region = state.region
        if pick != slice(0, len(region)):
            index = torch.arange(len(region), device=region.center.device)[pick]
            region = region.picked(lambda t: t[pick]) or region.select(index)
        return State(graph, region, intervals, relaxations)


class _Sum(Function):
    """part(tensors, pick) summed over picks; the first `shared` tensors are whole for every pick."""

    @staticmethod
    def forward(
        ctx: Any,
        part: Callable[[Sequence[Tensor], slice], Tensor],
        picks: Sequence[slice],
        shared: int,
        *tensors: Tensor,
    ) -> Tensor:
        needed = ctx.needs_input_grad[3:]
        sums: list[Tensor | None] = [None] * len(tensors)
        total = torch.zeros((), dtype=tensors[-1].dtype, device=tensors[-1].device)
        for pick in picks:
            with torch.enable_grad():
                own = [
                    (t if i < shared else t[pick]).detach().requires_grad_(needed[i])
                    for i, t in enumerate(tensors)
                ]
                found = part(own, pick)
                wanted = [t for t, need in zip(own, needed, strict=True) if need]
                slopes = iter(torch.autograd.grad(found, wanted, materialize_grads=True))
            total += found.detach()
            for i, need in enumerate(needed):
                if need:
                    sums[i] = _joined(
                        sums[i], next(slopes), tensors[i], None if i < shared else pick
                    )
        ctx.sums = sums
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, *(None if s is None else s * gradient for s in ctx.sums)


def _joined(held: Tensor | None, new: Tensor, like: Tensor, pick: slice | None) -> Tensor:
    """Gradients of shared tensors add up, those of inputs go to their place."""
    if pick is None:
        return new if held is None else held.add_(new)
    held = torch.empty_like(like) if held is None else held
    held[pick] = new
    return held


def _curved(op: Op) -> bool:
    return not isinstance(op, Affine | Input)


def _inputs_at_once(state: State, rows: int) -> int:
    like = state.region.center
    room = elements(like.device, like.dtype, None)
    if like.device.type == "cpu":
        room = min(room, _CACHED)
    return max(1, room // (rows * widest(state.graph, state.graph.output)))


def _picks(batch: int, most: int) -> Iterator[slice]:
    """Pieces of nearly equal size."""
    count = -(-batch // most)
    ends = [batch * i // count for i in range(count + 1)]
    yield from (slice(a, b) for a, b in pairwise(ends))
