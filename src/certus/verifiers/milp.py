"""Exact verification as a mixed-integer linear program on HiGHS (Tjeng, Xiao and Tedrake 2019)."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certus.bounding import Crown
from certus.bounding.engine import Engine
from certus.bounding.guarded import Guarded, error_of
from certus.bounding.state import State
from certus.core import UnsupportedError
from certus.core.numerics import guard
from certus.graph import Graph
from certus.graph.activation import Clamp
from certus.graph.op import Elementwise
from certus.threats import Box, Region
from certus.verifiers.affine_form import AffineForm, affine_form
from certus.verifiers.encoding import Program, Scaled, encodings

_DUAL_TOLERANCE = 2e-7  # HiGHS: a reduced cost, times the width 2 of a scaled column
_TOLERANCE = 1e-6  # HiGHS: feasibility of a row, and distance of a binary from 0 or 1


@dataclass(frozen=True, eq=False)
class Minimum:
    """What is known of min <row, f(x)> over the region.

    lower is proven (dual bound less the solver's tolerances, or CROWN's bound where that is better).
    point [1, *shape] is the solver's best input, or None; timed_out says why lower may be loose.
    """

    lower: float
    point: Tensor | None
    timed_out: bool
    usable: bool


class Milp:
    """The program of one network on one box: built once, minimised for several rows.

    The big-M constants are CROWN's bounds in float64, widened by a rounding guard; stable neurons
    get no binary. engine: where given, what is minimised is every evaluation that it may make, each
    operation within its local error; without one the network in real arithmetic. Raises
    UnsupportedError for a region that is not a box or an activation that is not piecewise linear.
    """

    def __init__(self, graph: Graph, region: Region, engine: Engine | None = None) -> None:
        if not isinstance(region, Box) or len(region) != 1:
            raise UnsupportedError("milp needs an L-inf or box threat, one input at a time")
        graph.refuse_changed()
        self.graph = graph.cast(torch.float64)
        self.region = Box(region.lower.double(), region.upper.double())
        self.engine = engine
        self.crown = Crown() if engine is None else Crown(rigorous=Guarded(engine))
        self.state = self._widened(self.crown.prepare(self.graph, self.region))
        self.program = Program(self.region)
        self.forms: list[tuple[int, AffineForm]] = []
        for position, node in enumerate(self.graph.nodes):
            rule = encodings[type(node.op)]
            rule(self, position)

    def inner_form(self, position: int) -> AffineForm:
        """The input of a non-linear node as an affine form; kept for the tolerance analysis."""
        source = self.graph.nodes[position].inputs[0]
        size = self.graph.nodes[source].numel
        rows = torch.eye(size, dtype=torch.float64).view(size, *self.graph.nodes[source].shape)
        form = affine_form(self.graph, source, rows, self.error)
        self.forms.append((position, form))
        return form

    def bounds(self, rows: Tensor) -> Tensor:
        """CROWN's lower bounds [R] of rows [R, K], on the same intervals."""
        shaped = rows.double().view(len(rows), 1, *self.graph.output_shape)
        return self.crown.bound(self.state, shaped).lower[:, 0]

    def error(self, position: int) -> Tensor | None:
        """[1, *shape]: what the engine may lose at a node; None for nothing."""
        if self.engine is None:
            return None
        node = self.graph.nodes[position]
        return error_of(self.graph, node, self.state.intervals, self.engine)

    @staticmethod
    def _widened(state: State) -> State:
        """Intervals widened by the rounding guard, so that the true pre-activations lie inside."""
        intervals = {
            position: (lower - guard(lower), upper + guard(upper))
            for position, (lower, upper) in state.intervals.items()
        }
        return replace(state, intervals=intervals)

    def minimise(self, row: Tensor, seconds: float) -> Minimum:
        """Minimise <row, output> for a row [K], within a time limit."""
        from scipy.optimize import Bounds, LinearConstraint, milp

        rows = row.double().view(1, *self.graph.output_shape)
        crown = float(self.bounds(rows.flatten(1))[0])
        form = affine_form(self.graph, self.graph.output, rows, self.error)
        cost = np.zeros(self.program.size)
        for node, matrix in form.matrices.items():
            cost[self.program.columns(node)] += matrix[0].numpy()
        if not self.program.binaries:  # every neuron is stable: the network is affine here
            return Minimum(crown, self._corner(row), False, bool(np.isfinite(crown)))
        if seconds <= 0:
            return Minimum(crown, None, True, False)
        scaled = self.program.scaled(cost)
        start = time.perf_counter()
        with _stdout_to_stderr():
            result = milp(
                scaled.cost,
                integrality=self.program.integrality(),
                bounds=Bounds(scaled.lower, scaled.upper),
                constraints=LinearConstraint(scaled.matrix, scaled.low, scaled.high),
                options={"time_limit": seconds, "mip_rel_gap": 1e-4},
            )
        timed_out = time.perf_counter() - start >= seconds
        dual = _dual(result)
        if dual is not None:
            dual = dual * scaled.unit + scaled.constant + float(form.offset[0] - form.error[0])
            dual -= self._slack(form) + _DUAL_TOLERANCE * scaled.unit * len(cost)
        lower = crown if dual is None else max(crown, dual)
        return Minimum(lower, self._point(result, scaled), timed_out, dual is not None)

    def _slack(self, form: AffineForm) -> float:
        """How far the optimum can move when every row is violated by the solver's tolerance.

        Magnitudes of the coefficients are pushed back through the absolute weights; slopes are at
        most one, so a violation at a neuron reaches the objective no more than this much enlarged.
        """
        weight = {node: matrix[0].abs() for node, matrix in form.matrices.items()}
        total = 1.0
        for position, inner in reversed(self.forms):
            reach = weight.get(position)
            if reach is None:
                continue
            source = self.graph.nodes[position].inputs[0]
            lower, upper = self.state.intervals[source]
            width = float((upper - lower).max())
            op = self.graph.nodes[position].op
            stages = 2 if isinstance(op, Clamp) else 1  # of rows, each scaled to its largest entry
            total += stages * float(reach.sum()) * (1 + 2 * width)
            elementwise = isinstance(op, Elementwise)
            factor = reach if elementwise else reach.sum().expand(inner.offset.numel())
            for node, matrix in inner.matrices.items():
                part = factor @ matrix.abs()
                weight[node] = weight[node] + part if node in weight else part
        return _TOLERANCE * total

    def _point(self, result: Any, scaled: Scaled) -> Tensor | None:
        if result.x is None:
            return None
        values = scaled.middle + scaled.half * np.asarray(result.x)
        flat = torch.from_numpy(values[self.program.columns(0)])
        return self.region.project(flat.view(1, *self.graph.input_shape))

    def _corner(self, row: Tensor) -> Tensor:
        """The minimiser of an affine network: a corner of the box by the sign of the gradient."""
        x = self.region.center.clone().requires_grad_()
        with torch.enable_grad():
            (self.graph(x).flatten() @ row.double()).backward()
        gradient = x.grad if x.grad is not None else torch.zeros_like(x)
        return torch.where(gradient > 0, self.region.lower, self.region.upper)


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """HiGHS writes remarks of its own to the standard output, where results belong."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _dual(result: Any) -> float | None:
    """The solver's dual bound, only from a run that ended optimal (0) or at a limit (1)."""
    bound = getattr(result, "mip_dual_bound", None)
    if result.status not in (0, 1) or bound is None or not np.isfinite(bound):
        return None
    return float(bound)
