"""Certification by bounds of the margins, one certifier for each bound method."""

from dataclasses import dataclass, field, make_dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from certus.bounding import BoundMethod, Crown, margin_rows, rounding_guard
from certus.bounding.base import State
from certus.bounding.engine import engine_of
from certus.bounding.guarded import Guarded, doubled
from certus.certifiers.base import Answer, Certifier, Query, decide
from certus.certifiers.bound_methods import BOUNDS
from certus.certifiers.tail import Tail
from certus.core import Reason, UnsupportedError, Verdict
from certus.core.numerics import guard, sound
from certus.graph import Graph
from certus.graph.ending import Ending, ending_of


@dataclass(frozen=True, kw_only=True)
class BoundCertifier(Certifier):
    """VERIFIED where the lower bound of z_y - z_j over the region is above zero for every j != y.

    A bound counts where it exceeds all that rounding may take away. The cheap estimate of that
    (`rounding_guard`) says far too much in deep networks, so inputs whose bounds are positive but not
    above it are bounded once more, around every evaluation that the model's engine may make.
    """

    gives_radius: ClassVar[bool] = False
    needs: ClassVar[str] = "any graph"
    method: BoundMethod

    def run(self, query: Query) -> list[Answer]:
        """One batched bound of all margins, and a second one of those that are close."""
        ending = ending_of(query.graph)
        graph = (ending.logits if ending else query.graph).resolved()
        spec = margin_rows(query.y, query.logits.shape[1], query.x)
        state = self.method.prepare(graph, query.region)
        found = self.method.bound(state, spec.transpose(0, 1))
        error = rounding_guard(graph, state.intervals, query.x.dtype)
        slack = torch.einsum("brk,bk->br", spec.abs(), error)
        tail = self._tail(ending, state, query, error) if ending else None
        if tail is not None:
            slack = slack + tail.apart().to(slack)[:, None]
        answers = decide(query, found.lower.T, found.upper.T, slack)
        close = [b for b, answer in enumerate(answers) if answer.reason is Reason.ROUNDING]
        if close:
            index = torch.tensor(close, device=query.x.device)
            apart = tail.apart()[index] if tail else torch.zeros_like(index).double()
            holds = guarded(self.method, graph, query.select(index), apart)
            for b, proven in zip(close, holds.tolist(), strict=True):
                if proven:
                    verdict, radius = Verdict.VERIFIED, float(query.radius[b])
                    answers[b] = replace(answers[b], verdict=verdict, reason=None, radius=radius)
        return answers if tail is None else tail.translated(answers)

    def _tail(self, ending: Ending, state: State, query: Query, error: Tensor) -> Tail:
        """The end of the network, with the range of the label's logit in every evaluation."""
        row = one_hot(query.y, query.logits.shape[1]).to(query.x)
        found = self.method.bound(state, row[None])
        off = (row * error).sum(1)
        engine = engine_of(query.graph, query.x.dtype)
        low, high = found.lower[0] - off, found.upper[0] + off
        return Tail(ending, engine, low.double(), high.double())


def guarded(method: BoundMethod, graph: Graph, query: Query, apart: Tensor) -> Tensor:
    """Bool [B]: whether every evaluation by the model's engine gives the label more than `apart` [B].

    By the method itself, or by CROWN where it has one arithmetic alone. False where the region or an
    operation has no rule.
    """
    how = Guarded(engine_of(graph, query.x.dtype))
    if type(query.region) not in doubled:
        return torch.zeros(len(query.x), dtype=torch.bool)
    spec = margin_rows(query.y, query.logits.shape[1], query.x.double())
    own = method.under(how) or Crown().under(how)
    assert own is not None
    try:
        region = doubled[type(query.region)](query.region)
        found = own(graph.cast(torch.float64), region, spec)
    except UnsupportedError:
        return torch.zeros(len(query.x), dtype=torch.bool)
    least = guard(found.upper.abs()) + apart[:, None]
    usable = sound(found.lower, found.upper) & (found.lower > least)
    return usable.all(1)


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
