"""Certification by bounds of the margins: IBP, CROWN-IBP, CROWN, or any other bound method."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from certus.bounding import IBP, BoundMethod, Crown, crown_ibp, margin_rows, rounding_guard
from certus.certifiers.base import Answer, Certifier, Query, decide


@dataclass(frozen=True, kw_only=True)
class BoundCertifier(Certifier):
    """VERIFIED where the lower bound of z_y - z_j over the region is above zero for every j != y."""

    gives_radius: ClassVar[bool] = False
    needs: ClassVar[str] = "any graph"
    method: BoundMethod

    def run(self, query: Query) -> list[Answer]:
        """One batched bound of all margins."""
        graph = query.graph.resolved()
        spec = margin_rows(query.y, query.logits.shape[1], query.x)
        state = self.method.prepare(graph, query.region)
        found = self.method.bound(state, spec.transpose(0, 1))
        error = rounding_guard(graph, state.intervals, query.x.dtype)
        slack = torch.einsum("brk,bk->br", spec.abs(), error)
        return decide(query, found.lower.T, found.upper.T, slack)


@dataclass(frozen=True, kw_only=True)
class IntervalCertifier(BoundCertifier):
    """Interval bound propagation: the cheapest proof, made for networks trained with it."""

    name: ClassVar[str] = "ibp"
    method: BoundMethod = field(default_factory=IBP)


@dataclass(frozen=True, kw_only=True)
class CrownIbpCertifier(BoundCertifier):
    """One backward pass over interval bounds."""

    name: ClassVar[str] = "crown-ibp"
    method: BoundMethod = field(default_factory=crown_ibp)


@dataclass(frozen=True, kw_only=True)
class CrownCertifier(BoundCertifier):
    """Backward bounds for every neuron and for the margins."""

    name: ClassVar[str] = "crown"
    method: BoundMethod = field(default_factory=Crown)
