"""Exact certification by mixed-integer programming, for small piecewise-linear networks."""

import time
from dataclasses import dataclass
from typing import ClassVar

import torch

from certus.bounding import margin_rows
from certus.bounding.engine import engine_of
from certus.bounding.precision import refuse_autocast
from certus.certifiers.base import Certifier, Query, misclassified
from certus.core import Answer, Model, Reason, UnsupportedError, Verdict
from certus.core.claim import EXACT
from certus.core.numerics import guard
from certus.core.replay import margins
from certus.core.validate import positive
from certus.graph import Graph
from certus.threats import Box, Threat
from certus.verifiers import Milp
from certus.verifiers.encoding import encodings

_BOX = "milp needs an L-inf or box threat"


@dataclass(frozen=True, kw_only=True)
class MilpCertifier(Certifier):
    """Minimises every margin z_y - z_j that CROWN leaves open; timeout is seconds per input.

    VERIFIED from dual bounds alone; FALSIFIED with the solver's input, replayed; UNKNOWN where the
    time runs out. Needs an L-inf or box threat, ReLU, leaky ReLU or max pooling.
    """

    name: ClassVar[str] = "milp"
    kind: ClassVar[str] = EXACT
    gives_radius: ClassVar[bool] = False
    block: int = 1
    timeout: float = 60.0

    def __post_init__(self) -> None:
        """Validate."""
        positive(self.timeout, "timeout")

    def accepts(self, model: Model, threat: Threat) -> str | None:
        """A graph of piecewise linear operations, under a box."""
        if threat.norm not in ("linf", "box"):
            return _BOX
        if not isinstance(model, Graph):
            return super().accepts(model, threat)
        return encodings.missing(type(node.op) for node in model.nodes)

    def run(self, query: Query) -> list[Answer]:
        """One input after the other."""
        if not isinstance(query.region, Box):
            raise UnsupportedError(_BOX)
        refuse_autocast(query.x.device)
        wrong, answers = misclassified(query), []
        for b in range(len(query.y)):
            answers.append(wrong[b] or self._one(query.select(torch.tensor([b]))))
            query.progress(b + 1, len(query.y))
        return answers

    def _one(self, query: Query) -> Answer:
        end = time.perf_counter() + self.timeout
        milp = Milp(query.graph, query.region, engine_of(query.graph, query.x.dtype))
        spec = margin_rows(query.y, query.logits.shape[1], query.x)[0]
        lower = milp.bounds(spec)
        slack = guard(lower)  # rounding of the evaluation is part of the program
        timed_out = failed = False
        for j in lower.argsort().tolist():
            if lower[j] > slack[j]:
                continue
            found = milp.minimise(spec[j].cpu(), end - time.perf_counter())
            lower[j] = found.lower
            if found.point is not None:
                answer = self._replay(query, found.point.to(query.x), float(lower.min()))
                if answer is not None:
                    return answer
            if not found.lower > slack[j]:
                timed_out, failed = timed_out or found.timed_out, failed or not found.usable
        margin = float(lower.min())
        if bool((lower > slack).all()):
            radius = float(query.radius[0])
            return Answer(verdict=Verdict.VERIFIED, reason=None, radius=radius, margin=margin)
        reason = Reason.TIMEOUT if timed_out else Reason.SOLVER if failed else Reason.LOOSE
        return Answer(verdict=Verdict.UNKNOWN, reason=reason, radius=0.0, margin=margin)

    @staticmethod
    def _replay(query: Query, point: torch.Tensor, margin: float) -> Answer | None:
        """FALSIFIED if the solver's input fools the network inside the region."""
        point = query.region.project(point)
        if not bool(margins(query.graph.original, point, query.y) <= 0):
            return None
        return Answer(
            verdict=Verdict.FALSIFIED,
            reason=Reason.ATTACKED,
            radius=0.0,
            margin=margin,
            witness=point[0],
        )
