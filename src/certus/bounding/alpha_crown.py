"""alpha-CROWN: CROWN whose lower slopes are improved for every bound (Xu et al. 2021)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from certus.bounding.alphas import Alphas, best_bounds
from certus.bounding.backward import Query
from certus.bounding.crown import Crown
from certus.bounding.maps import Maps
from certus.bounding.multipliers import Multipliers, Slopes, joined
from certus.bounding.state import State
from certus.core import ArgumentError, Bounds
from certus.core.validate import count
from certus.graph import Graph
from certus.graph.fusion import needed
from certus.relax import Interval
from certus.threats import Region


@dataclass(frozen=True, kw_only=True)
class AlphaCrown(Crown):
    """CROWN, then gradient steps on the lower slopes of undecided ReLUs, one set for every bound.

    Layer by layer: each inner neuron that CROWN leaves undecided gets slopes of its own for its
    lower and its upper bound, `inner` steps; then each row of the specification, `iterations` steps,
    fewer where every lower bound is above `enough`. shared: the rows of a specification share slopes,
    which takes less memory. rate: size of the first step. Results are not differentiable.
    """

    iterations: int = 20
    inner: int = 6
    rate: float = 0.25
    shared: bool = False
    enough: float = float("inf")

    def __post_init__(self) -> None:
        """Validate."""
        super().__post_init__()
        count(self.iterations, "iterations")
        if not isinstance(self.inner, int) or self.inner < 0:
            raise ArgumentError(f"inner must be an integer >= 0, got {self.inner}")
        if not isinstance(self.rate, int | float) or not 0 < self.rate <= 10:
            raise ArgumentError(f"rate must lie in (0, 10], got {self.rate}")

    def prepare(self, graph: Graph, region: Region) -> State:
        """Intervals of the inner nodes; not differentiable."""
        with torch.no_grad():
            return super().prepare(graph, region)

    def _tighten(self, state: State, position: int) -> Interval:
        """CROWN decides what it can; the rest is improved."""
        state.intervals[position] = super()._tighten(state, position)
        if self.inner == 0 or not state.relaxations.keys() & needed(state.graph, position):
            return state.intervals[position]
        return self._search(state, position, self._improved)

    def _improved(self, state: State, query: Query) -> Bounds:
        """Both bounds of inner neurons."""

        def walk(alphas: Alphas) -> Tensor:
            return self._arithmetic.walk(state, True, alphas).run(query.start, query.rows)

        return query.bounds(best_bounds(walk, self.inner, self.rate, Alphas(), float("inf")))

    def improved(
        self, state: State, rows: Tensor, start: Multipliers | None = None
    ) -> tuple[Tensor, Multipliers]:
        """Lower bounds [R, B] and the slopes that prove them, improved from given ones on."""
        given, columns = start or Multipliers(), dict[int, list[tuple[int, Slopes]]]()
        given.check(state.graph, len(rows), len(state.region))

        def run(own: Maps, at: slice) -> Tensor:
            assert not isinstance(own.pick, Tensor)
            inputs = own.pick or slice(0, len(state.region))
            alphas = Alphas(self.shared, given.part(at, inputs), keeps=True)
            found = self._best(state, own, False, alphas)
            columns.setdefault(inputs.start, []).append((len(own.coefs), alphas.best))
            return found

        with self._arithmetic.context(rows):
            lower = self._in_pieces(state, rows, False, run)
        return self._arithmetic.raised(state, rows, lower), joined(list(columns.values()))

    def _run(self, state: State, rows: Maps, both: bool) -> Tensor:
        """Bounds of the specification."""
        return self._best(state, rows, both, Alphas(self.shared))

    def _best(self, state: State, rows: Maps, both: bool, alphas: Alphas) -> Tensor:
        def walk(alphas: Alphas) -> Tensor:
            return self._arithmetic.walk(state, both, alphas).run(state.graph.output, rows)

        return best_bounds(walk, self.iterations, self.rate, alphas, self.enough)
