"""Certification from Lipschitz constants: one forward pass gives a radius for every input."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from certus.bounding import rounding_guard
from certus.bounding.engine import engine_of
from certus.certifiers.base import Certifier, Query, misclassified
from certus.certifiers.reach import within
from certus.certifiers.tail import Tail
from certus.core import Answer, Model, ModelError, UnsupportedError
from certus.graph import Graph
from certus.graph.ending import ending_of, logits_of
from certus.lipschitz import prepare, refusal
from certus.threats import Threat
from certus.threats.region import spread


@dataclass(frozen=True, kw_only=True)
class LipschitzCertifier(Certifier):
    """VERIFIED where the certified L2 radius exceeds how far the threat reaches in L2.

    Constants are upper bounds of every layer's norm (never power iteration), the last layer is
    treated pairwise. The radius is reported in the threat's own norm.
    """

    name: ClassVar[str] = "lipschitz"
    gives_radius: ClassVar[bool] = True
    block: int = 256

    @property
    def norm(self) -> str:
        """L2, that of the constants."""
        return "l2"

    def accepts(self, model: Model, threat: Threat) -> str | None:
        """A graph of layers with a known bound."""
        return (
            refusal(logits_of(model))
            if isinstance(model, Graph)
            else super().accepts(model, threat)
        )

    def run(self, query: Query) -> list[Answer]:
        """Radii of the whole batch at once."""
        ending, graph = ending_of(query.graph), logits_of(query.graph)
        try:
            found = prepare(graph)
        except ModelError as why:  # constants that overflow say nothing against the model
            raise UnsupportedError(str(why)) from why
        radius, margin = found.radius(query.x, query.y)
        # a constant network has no limit: then what the threat reaches is enough
        extent = query.region.l2_extent(query.x).double()
        radius = torch.where(radius.isinf(), 2 * extent + 1, radius)
        ranges = {}
        for i, value in enumerate(graph.values(query.x)):  # all that the radius lets x' reach
            reach = spread((found.constants[i] * radius).to(value), value)
            ranges[i] = value - reach, value + reach
        error = rounding_guard(graph.resolved(), ranges, query.x.dtype).amax(1).double()
        lost = 4 * error  # two logits, at x and at x'
        if ending is not None:
            ends = (end.double().gather(1, query.y[:, None])[:, 0] for end in ranges[graph.output])
            low, high = (end + sign * error for end, sign in zip(ends, (-1, 1), strict=True))
            lost = lost + Tail(ending, engine_of(graph, query.x.dtype), low, high).apart()
        kept = (1 - lost / margin.clamp(min=1e-300)).clamp(min=0)
        radius = radius * kept
        wrong = misclassified(query)
        return [w or a for w, a in zip(wrong, within(query, radius.cpu()), strict=True)]
