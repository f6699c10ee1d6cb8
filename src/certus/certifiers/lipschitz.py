"""Certification from Lipschitz constants: one forward pass gives a radius for every input."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from certus.bounding import rounding_guard
from certus.certifiers.base import Certifier, Query, misclassified
from certus.certifiers.reach import within
from certus.core import Answer, Model, ModelError, UnsupportedError
from certus.graph import Graph
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
        return refusal(model) if isinstance(model, Graph) else super().accepts(model, threat)

    def run(self, query: Query) -> list[Answer]:
        """Radii of the whole batch at once."""
        try:
            found = prepare(query.graph)
        except ModelError as why:  # constants that overflow say nothing against the model
            raise UnsupportedError(str(why)) from why
        radius, margin = found.radius(query.x, query.y)
        # a constant network has no limit: then what the threat reaches is enough
        extent = query.region.l2_extent(query.x).double()
        radius = torch.where(radius.isinf(), 2 * extent + 1, radius)
        ranges = {}
        for i, value in enumerate(query.graph.values(query.x)):  # all that the radius lets x' reach
            reach = spread((found.constants[i] * radius).to(value), value)
            ranges[i] = value - reach, value + reach
        error = rounding_guard(query.graph.resolved(), ranges, query.x.dtype).amax(1).double()
        kept = (1 - 4 * error / margin.clamp(min=1e-300)).clamp(min=0)  # two logits, at x and at x'
        radius = radius * kept
        wrong = misclassified(query)
        return [w or a for w, a in zip(wrong, within(query, radius.cpu()), strict=True)]
