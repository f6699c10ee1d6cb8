"""Whether a graph computes what its original computes, measured by how much the outputs vary.

Differences count relative to the spread of each output over inputs, so that no bias hides them. What
goes beyond a few roundings must be explained by rounding: the values of a float64 evaluation whose
operations are each disturbed by a unit of their absolute terms show how much it can do. At a jump
(Sign, Floor, comparisons) rounding may choose the side; elsewhere, and at jumps that are met exactly,
values must be the same.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from certus.core.random import generator
from certus.graph.activation import SShaped
from certus.graph.extremum import ArgMax
from certus.graph.gated import Gated
from certus.graph.graph import Graph
from certus.graph.op import Affine, Op, Shape
from certus.graph.piecewise import Jumps
from certus.graph.smooth import Atan, Celu, Elu, Erf, LogSigmoid, Softplus
from certus.graph.softmax import MaskedSoftmax, Softmax
from certus.graph.whole import Fits, FloorDivide

_FEW = 80  # roundings, relative to the spread of an output
_OWN = 8  # roundings of the output itself
_TIMES = 8  # units that an operation may be off by
_SIDES = 16  # how far from a jump, in roundings seen before it
_SWAMPED = 1e-3  # share of the spread beyond which a unit of every operation says nothing
_AT_ONCE = 2**24  # numbers in one value
_COPIES = 4  # disturbed evaluations
_LARGE = (300.0, 4e4, 7e4, 3e9)  # beyond the small types of numbers
_TINY = 1e-8
_APPROXIMATED = (SShaped, Gated, Elu, Celu, Erf, Atan, Softplus, LogSigmoid, Softmax, MaskedSoftmax)
ORDINARY = 5  # so many probes come first that lie where networks are meant to be used


def probes(shape: Shape, like: Tensor) -> Tensor:
    """[n, *shape]: normal and uniform, vertices, whole and half numbers, then large and tiny ones."""
    source = generator(0, 1)

    def normal() -> Tensor:
        return torch.randn(shape, generator=source, dtype=torch.float64)

    def uniform() -> Tensor:
        return torch.rand(shape, generator=source, dtype=torch.float64)

    rows = [normal(), uniform(), 3 * normal(), 0.1 * normal(), uniform().round()]
    rows += [(3 * normal()).round() + 0.5, (3 * normal()).round(), (255 * uniform()).round()]
    rows += [size * normal() for size in (*_LARGE, _TINY)]
    return torch.stack(rows).to(like)


def difference(graph: Graph, x: Tensor, expected: Tensor, ordinary: int) -> float | None:
    """The largest unexplained difference relative to an output's spread; zero where there is none.

    x [n, *shape] and the original's values [n, *out] there, of which the first `ordinary` belong
    together. Values that are not finite say nothing; None where that is so of all ordinary ones.
    """
    with torch.no_grad():
        found = torch.cat([graph(rows) for rows in x.split(_rows(graph))])
        if found.shape != expected.shape:
            return float("inf")
        case = _Case(graph, x, _flat(expected), _flat(found), ordinary)
        return case.worst()


def _rows(graph: Graph) -> int:
    """How many probes are evaluated at once: all, but of large values few, for the memory's sake."""
    return max(1, _AT_ONCE // max(math.prod(node.shape) for node in graph.nodes))


@dataclass(frozen=True, eq=False)
class _Case:
    graph: Graph
    x: Tensor
    expected: Tensor
    found: Tensor
    ordinary: int
    silent: set[int] = field(default_factory=set)  # probes of which the graph says nothing

    def worst(self) -> float | None:
        known = torch.isfinite(self.expected).all(1)
        if not bool(known[: self.ordinary].any()):
            return None
        wrong = (known & ~(self._gap <= self._limit).all(1)).nonzero().flatten().tolist()
        verdicts = [self._judged(row) for row in wrong]
        worst = max((v for v in verdicts if v is not None), default=0.0)
        undecided = sum(v is None for v in verdicts) - len(self.silent)
        if len(self.silent) == int(known.sum()):  # the graph has no value anywhere
            return float("inf")
        if worst == 0 and 2 * undecided > int(known.sum()) - len(self.silent):
            return max(self._relative(row) for row in wrong)
        return worst

    @cached_property
    def _spread(self) -> Tensor:
        """How far each output varies: among the ordinary probes, and up to the probe itself."""
        usual = self.expected[: self.ordinary]
        usual = usual[torch.isfinite(usual).all(1)]
        centre = usual.mean(0)
        return torch.maximum((usual - centre).abs().amax(0), (self.expected - centre).abs())

    @cached_property
    def _gap(self) -> Tensor:
        return (self.found - self.expected).abs()

    @cached_property
    def _limit(self) -> Tensor:
        unit = torch.finfo(self.x.dtype).eps
        return (
            unit * (_FEW * self._spread + _OWN * self.expected.abs())
            + torch.finfo(self.x.dtype).tiny
        )

    @cached_property
    def _other(self) -> tuple[Graph, float]:
        """The graph in another precision, and by what rounding against it is multiplied."""
        if self.x.dtype == torch.float64:
            return self.graph.cast(torch.float32), 2.0**-29
        return self.graph.cast(torch.float64), 1.0

    def _judged(self, row: int) -> float | None:
        """Zero where rounding explains the difference, None where nothing can be said."""
        if not bool(torch.isfinite(self.found[row]).all()):
            partial = any(isinstance(n.op, Fits | FloorDivide) for n in self.graph.nodes)
            if row >= self.ordinary or partial:
                self.silent.add(row)
                return None
            return float("inf")
        beyond = self._gap[row] - self._limit[row]
        if self._at_a_jump(self.x[row : row + 1]):
            near = (self._neighbours(row) - self.expected[row]).abs() <= 10 * self._limit[row]
            return 0.0 if bool(near.all(1).any()) else None
        noise = self._noise(row)
        if not bool(torch.isfinite(noise).all()):
            self.silent.add(row)
            return None
        fine = beyond <= _TIMES * noise
        if row >= self.ordinary:  # far out, rounding may leave nothing to compare
            fine |= noise > _SWAMPED * torch.maximum(self._spread[row], self._gap[row])
        return 0.0 if bool(fine.all()) else self._relative(row)

    def _relative(self, row: int) -> float:
        tiny = torch.finfo(self.x.dtype).tiny
        return float(self._gap[row].max() / self._spread[row].max().clamp(min=tiny))

    def _noise(self, row: int) -> Tensor:
        """[out]: what a unit in the last place of every operation's terms may do to the outputs."""
        graph, unit = self.graph.cast(torch.float64), torch.finfo(self.x.dtype).eps
        x = self.x[row : row + 1].double()
        found = _disturbed(graph, x.expand(_COPIES, *x.shape[1:]), unit)
        return _flat(found - graph(x)).abs().amax(0)

    def _neighbours(self, row: int) -> Tensor:
        """Values [copies, out] at inputs a rounding away, in both precisions."""
        x, (other, _) = self.x[row : row + 1], self._other
        steps = torch.randint(-1, 2, (_COPIES, *x.shape[1:]), generator=generator(0, row))
        x = x * (1 + steps.to(x) * torch.finfo(x.dtype).eps)
        both = [self.graph(x), other(x.to(other.dtype))]
        return torch.cat([_flat(value) for value in both])

    def _at_a_jump(self, x: Tensor) -> bool:
        """Whether rounding before a jump decides on which side of it a value falls."""
        other, share = self._other
        nodes = [n for n in self.graph.nodes if isinstance(n.op, Jumps | ArgMax)]
        if not nodes:
            return False
        own, others = self.graph.values(x), other.values(x.to(other.dtype))
        for node in nodes:
            value, twin = own[node.inputs[0]], others[node.inputs[0]]
            reach = _SIDES * share * float((value.double() - twin.double()).abs().max())
            if reach != 0 and _decides(node.op, value, reach):
                return True
        return False


def _flat(values: Tensor) -> Tensor:
    """[n, out] in float64; an original may give one number an input."""
    return values.reshape(len(values), -1).double()


def _disturbed(graph: Graph, x: Tensor, unit: float) -> Tensor:
    """The output where each operation's value is off by up to a unit of its absolute terms.

    Functions that are approximated (sigmoid, GELU) are off by a unit of one, too.
    """
    draws, values = generator(0, 2), [x]
    for node in graph.nodes[1:]:
        own = [values[i] for i in node.inputs]
        value = node.op.forward(*own)
        if not isinstance(node.op, Jumps | ArgMax | Fits):
            sizes = _terms(node.op, own) if isinstance(node.op, Affine) else value
            sizes = sizes.abs() + (1.0 if isinstance(node.op, _APPROXIMATED) else 0.0)
            noise = 2 * torch.rand(value.shape, generator=draws, dtype=value.dtype) - 1
            value = value + unit * sizes * noise.to(value.device)
        values.append(value)
    return values[graph.output]


def _terms(op: Affine, own: list[Tensor]) -> Tensor:
    """The absolute terms that an affine value is the sum of, and those of its weights."""
    found = op.magnitude(*[value.abs() for value in own])
    drift = op.drift(own[0].abs()) if own else None
    if drift is not None:
        found = found + drift
    offset = op.offset_terms([tuple(value.shape[1:]) for value in own], found)
    return found if offset is None else found + offset


def _decides(op: Op, value: Tensor, reach: float) -> bool:
    """Whether a jump lies within reach of a value; true for NaN."""
    if isinstance(op, Jumps):
        return not torch.equal(op.forward(value - reach), op.forward(value + reach))
    assert isinstance(op, ArgMax)
    best = value.topk(min(2, value.shape[op.dim]), op.dim).values
    return not bool((best.narrow(op.dim, 0, 1) - best.narrow(op.dim, -1, 1) > 2 * reach).all())
