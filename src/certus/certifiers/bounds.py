"""Certification by bounds of the margins, with any bound method."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from certus.bounding import BoundMethod, Crown, margin_rows, rounding_guard
from certus.bounding.cases import suited
from certus.bounding.combine import check_methods
from certus.bounding.engine import engine_of
from certus.bounding.guarded import Guarded, doubled
from certus.bounding.state import State
from certus.certifiers.base import Certifier, Query, decide
from certus.certifiers.bound_methods import name_of
from certus.certifiers.tail import Tail
from certus.core import Answer, Reason, UnsupportedError, Verdict
from certus.core.numerics import guard, sound
from certus.graph import Graph
from certus.graph.ending import Ending, ending_of


@dataclass(frozen=True, kw_only=True)
class BoundCertifier(Certifier):
    """VERIFIED where the lower bound of z_y - z_j over the region is above zero for every j != y.

    A bound counts where it exceeds all that rounding may take away. The cheap estimate of that
    (`rounding_guard`) says far too much in deep networks, so inputs whose bounds are positive but not
    above it are bounded once more, around every evaluation that the model's engine may make. name is by
    default that of the method in the table of bound methods, or its class's.
    """

    gives_radius: ClassVar[bool] = False
    method: BoundMethod
    name: str = ""

    def __post_init__(self) -> None:
        """Validate, and take the method's name where none is given."""
        check_methods(self.method)
        object.__setattr__(self, "name", self.name or name_of(self.method))

    def run(self, query: Query) -> list[Answer]:
        """Batched bounds of all margins, and second ones of those that are close; group by group."""
        ending = ending_of(query.graph)
        graph = (ending.logits if ending else query.graph).resolved()
        method = suited(self.method, graph)
        groups = method.groups(graph, query.x)
        return [a for part in groups for a in _at_once(method, graph, ending, query.select(part))]


def _at_once(
    method: BoundMethod, graph: Graph, ending: Ending | None, query: Query
) -> list[Answer]:
    """Answers for a group of inputs; the graph ends in logits."""
    spec = margin_rows(query.y, query.logits.shape[1], query.x)
    state, found = method.at_once(graph, query.region, spec.transpose(0, 1))
    error = rounding_guard(graph, state.intervals, query.x.dtype)
    slack = torch.einsum("brk,bk->br", spec.abs(), error)
    tail = _tail(method, ending, state, query, error) if ending else None
    if tail is not None:
        slack = slack + tail.apart().to(slack)[:, None]
    answers = decide(query, found.lower.T, found.upper.T, slack)
    close = [b for b, answer in enumerate(answers) if answer.reason is Reason.ROUNDING]
    if close:
        index = torch.tensor(close, device=query.x.device)
        apart = tail.apart()[index] if tail else torch.zeros_like(index).double()
        holds = guarded(method, graph, query.select(index), apart)
        for b, proven in zip(close, holds.tolist(), strict=True):
            if proven:
                verdict, radius = Verdict.VERIFIED, float(query.radius[b])
                answers[b] = replace(answers[b], verdict=verdict, reason=None, radius=radius)
    return answers if tail is None else tail.translated(answers)


def _tail(method: BoundMethod, ending: Ending, state: State, query: Query, error: Tensor) -> Tail:
    """The end of the network, with the range of the label's logit in every evaluation."""
    row = one_hot(query.y, query.logits.shape[1]).to(query.x)
    found = method.bound(state, row[None])
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
