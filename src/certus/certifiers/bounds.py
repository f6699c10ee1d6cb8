"""Certification by bounds of the margins, one certifier for each bound method."""

from dataclasses import dataclass, field, make_dataclass
from typing import Any, ClassVar

import torch

from certus.bounding import BoundMethod, margin_rows, rounding_guard
from certus.certifiers.base import Answer, Certifier, Query, decide
from certus.certifiers.bound_methods import BOUNDS


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


def bound_certifier(name: str, about: str) -> Any:
    """The certifier of one bound method of the table; its default configuration is the table's."""
    return make_dataclass(
        "".join(part.title() for part in name.split("-")) + "Certifier",
        [("method", BoundMethod, field(default_factory=BOUNDS[name]))],
        bases=(BoundCertifier,),
        namespace={"name": name, "__doc__": about, "__module__": __name__},
        frozen=True,
        kw_only=True,
    )


IntervalCertifier = bound_certifier(
    "ibp", "Interval bound propagation: the cheapest proof, made for networks trained with it."
)
CrownIbpCertifier = bound_certifier("crown-ibp", "One backward pass over interval bounds.")
CrownCertifier = bound_certifier("crown", "Backward bounds for every neuron and for the margins.")
AlphaCrownCertifier = bound_certifier(
    "alpha-crown", "CROWN with slopes improved for every bound: tighter, and dearer."
)
ZonotopeCertifier = bound_certifier("zonotope", "Zonotopes, pushed forward layer by layer (DeepZ).")
ForwardCertifier = bound_certifier("forward", "Linear bounds in the input, pushed forward.")
FastLinCertifier = bound_certifier("fast-lin", "CROWN with parallel lines.")
WongKolterCertifier = bound_certifier("wong-kolter", "The dual of Wong and Kolter (2018).")
DeeppolyCertifier = bound_certifier("deeppoly", "CROWN with the slopes of DeepPoly.")
SdpCrownCertifier = bound_certifier("sdp-crown", "CROWN that sees an L2 ball as a whole.")
LpCertifier = bound_certifier("lp", "The triangle relaxation, solved as a linear program.")
