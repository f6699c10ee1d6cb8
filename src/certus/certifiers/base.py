"""Certifier: one adapter for each family of method, behind one sealed call."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor

from certus.bounding.budget import groups
from certus.core import (
    Answer,
    ArgumentError,
    Certificates,
    ContradictionError,
    Function,
    Model,
    ModelError,
    Progress,
    Reason,
    UnsupportedError,
    Verdict,
    as_model,
)
from certus.core.claim import CERTIFICATE, NETWORK, Claim
from certus.core.kinds import text
from certus.core.numerics import guard, sound
from certus.core.progress import silent
from certus.core.replay import margins, refuse_training
from certus.core.results import statistical
from certus.core.validate import inputs as check_inputs
from certus.core.validate import labels as check_labels
from certus.core.validate import logits as check_logits
from certus.graph import Graph
from certus.graph.agreement import difference
from certus.graph.onnx.runtime import OnnxModel
from certus.threats import Region, Threat


@dataclass(frozen=True, kw_only=True)
class Query:
    """What a certifier is asked, after validation, about B inputs.

    radius [B] is the threat's size in its own norm (NaN where it has no single one); the threat is that of
    all inputs, the region that of these.
    """

    model: Model
    x: Tensor
    y: Tensor
    logits: Tensor
    region: Region
    radius: Tensor
    threat: Threat
    ids: Sequence[int]
    progress: Progress

    @property
    def graph(self) -> Graph:
        """The model, for those that accept nothing else."""
        assert isinstance(self.model, Graph)
        return self.model

    @property
    def prediction(self) -> Tensor:
        """Class of each clean input, [B]."""
        return self.logits.argmax(1)

    def select(self, index: Tensor) -> "Query":
        """The same question about some of the inputs; index is int64 [M]."""
        ids = [self.ids[i] for i in index.tolist()]
        return replace(
            self,
            x=self.x[index],
            y=self.y[index],
            logits=self.logits[index],
            region=self.region.select(index),
            radius=self.radius[index],
            ids=ids,
        )


@dataclass(frozen=True, kw_only=True)
class Certifier(ABC):
    """Answers for each input whether its label is the prediction and stays it under a threat.

    Proofs, attacks and statistics are of this one kind: a model, inputs and a threat in, answers out.

    block is how many inputs are handled together; evaluation aligns its blocks to it, so that a
    resumed run repeats the same arithmetic.
    """

    kind: ClassVar[str] = CERTIFICATE
    gives_radius: ClassVar[bool]
    block: int = 64

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name of the method, such as `crown`: a class's own, or a field."""

    @abstractmethod
    def run(self, query: Query) -> list[Answer]:
        """One answer for each input; called under torch.no_grad."""

    def accepts(self, model: Model, threat: Threat) -> str | None:
        """Why it cannot be asked about a model under a threat, in one line; None where it can.

        By default a graph is wanted. What shows only in the course of the work may still be refused then.
        """
        if isinstance(model, Graph):
            return None
        return f"{self.name} looks into the model: give a certus.Graph, or a module that trace captures"

    @property
    def chance(self) -> float:
        """The chance that a single answer is wrong: 0 for proofs, alpha for statistical claims."""
        return 0.0

    @property
    def confidence(self) -> float:
        """1 for a proof, 1 - alpha for a statistical claim."""
        return statistical(self.chance) if self.chance else 1.0

    @property
    def norm(self) -> str | None:
        """The norm in which it finds radii; None where it decides one threat at a time."""
        return None

    @property
    def subject(self) -> str:
        """The function that it speaks of, as in `certus.core.claim`."""
        return NETWORK

    def claim(self, threat: str) -> Claim:
        """What its answers about a threat (JSON text) claim; ArgumentError where it cannot be told."""
        return Claim(
            kind=self.kind,
            subject=self.subject,
            threat=threat,
            alpha=self.chance,
            method=self.name,
            settings=text(self),
        )

    @final
    def __call__(
        self,
        model: Model | Callable[[Tensor], Tensor],
        x: Tensor,
        y: Tensor,
        threat: Threat,
        ids: Sequence[int] | None = None,
        progress: Progress = silent,
    ) -> Certificates:
        """Validate, run, re-check every witness on the original model, and time it.

        model: a `Model`, or a callable, which is a `Function` then. x [B, *shape] in the model's dtype; y [B]
        integer labels; ids name the inputs for the random draws (default 0..B-1). seconds is the wall
        time shared evenly by the inputs of the call.
        Raises ArgumentError, ModelError or UnsupportedError before any work for what cannot be used.
        """
        query = self._query(model, x, y, threat, ids, progress)
        start = time.perf_counter()
        with torch.no_grad():
            answers = rechecked(query, self.run(query))
        return Certificates.of(
            answers,
            method=self.name,
            threat=threat.describe(),
            seconds=time.perf_counter() - start,
            confidence=self.confidence,
            subject=self.subject,
            prediction=query.prediction,
        )

    def _query(
        self,
        model: Model | Callable[[Tensor], Tensor],
        x: Tensor,
        y: Tensor,
        threat: Threat,
        ids: Sequence[int] | None,
        progress: Progress,
    ) -> Query:
        check_inputs(x)
        asked = as_model(model, x)
        check_inputs(x, asked.input_shape)
        if x.dtype != asked.dtype:
            raise ArgumentError(f"inputs are {x.dtype}, the model computes in {asked.dtype}")
        if isinstance(asked, Graph):
            _refuse_infinite(asked)
        ids = list(range(len(x))) if ids is None else list(ids)
        if len(ids) != len(x):
            raise ArgumentError(f"ids must name each of the {len(x)} inputs, got {len(ids)}")
        region = threat.region(x)  # refuses inputs that do not fit the threat before any work
        reason = self.accepts(asked, threat)
        if reason is not None:
            raise UnsupportedError(reason)
        logits = _logits(asked, x, region)
        y = check_labels(y, len(x), logits.shape[1]).to(x.device)
        return Query(
            model=asked,
            x=x,
            y=y,
            logits=logits,
            region=region,
            radius=threat.radius(x),
            threat=threat,
            ids=ids,
            progress=progress,
        )


def _refuse_infinite(graph: Graph) -> None:
    for name, tensor in graph.tensors():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ArgumentError(f"the model's tensor {name} contains NaN or infinite values")


@torch.no_grad()
def _logits(model: Model, x: Tensor, region: Region) -> Tensor:
    """Logits of the original, which must be in evaluation mode and still be what the model was made from."""
    original = model.original
    refuse_training(original)
    if not isinstance(model, Graph):
        logits = check_logits(original(x.clone()), len(x))
        if not isinstance(model, Function):  # which calls nothing else
            _refuse_difference(model, x, logits)
        return logits
    model.refuse_changed()
    found = []
    for index in groups(model, x):
        part = x[index]
        found.append(check_logits(original(part.clone()), len(part)))
        _refuse_difference(model, part, found[-1])
    first = region.select(torch.tensor([0], device=x.device))
    ends = torch.cat([first.project(first.lower), first.project(first.upper)])
    _refuse_difference(model, ends, original(ends.clone()))
    return torch.cat(found)


def _refuse_difference(model: Model, x: Tensor, expected: Tensor) -> None:
    """ModelError where outputs that are numbers differ by more than rounding."""
    found = model(x)
    limit = 1e-4 if found.dtype == torch.float32 else 2e-2 if found.dtype.itemsize < 4 else 1e-8
    of_file = isinstance(model.original, OnnxModel)  # it cannot change, and another engine runs it
    limit = max(limit, 1e-3) if of_file else limit
    if expected.shape == found.shape:
        known = torch.isfinite(expected)  # elsewhere the model is not defined
        if of_file:  # whole numbers beyond their type wrap there; the graph, so its bounds, are NaN
            known &= ~found.isnan()
        gap, size = (expected - found).abs()[known], expected[known].abs()
        room = limit * size.max().clamp(min=1.0) if len(size) else limit
        if bool((gap <= room).all()) or _explained(model, x, expected):
            return
    raise ModelError("the model has changed since it was traced; call certus.trace again")


def _explained(model: Model, x: Tensor, expected: Tensor) -> bool:
    """Whether a graph differs from its original by no more than rounding may do."""
    if not isinstance(model, Graph):
        return False
    of_file = isinstance(
        model.original, OnnxModel
    )  # of rows that are not finite nothing is explained
    told = of_file or bool(torch.isfinite(expected).all())
    return told and difference(model, x, expected, len(x)) == 0


def decide(query: Query, lower: Tensor, upper: Tensor, slack: Tensor) -> list[Answer]:
    """Answers from bounds [B, K-1] of z_y - z_j: VERIFIED where every lower bound exceeds the slack.

    slack [B, K-1] is what rounding may take away from the margin.
    """
    usable = sound(lower, upper).all(1)
    scale = torch.maximum(lower.abs(), upper.abs())
    proven = (usable & (lower > guard(scale) + slack).all(1)).tolist()
    margin = lower.amin(1).tolist()
    radius = query.radius.tolist()
    answers: list[Answer] = []
    for b, known in enumerate(misclassified(query)):
        if known is not None:
            answers.append(known)
        elif not bool(usable[b]):
            answers.append(Answer(verdict=Verdict.UNKNOWN, reason=Reason.NUMERICAL, radius=0.0))
        elif proven[b]:
            answers.append(
                Answer(verdict=Verdict.VERIFIED, reason=None, radius=radius[b], margin=margin[b])
            )
        else:
            reason = Reason.ROUNDING if margin[b] > 0 else Reason.LOOSE
            answers.append(
                Answer(verdict=Verdict.UNKNOWN, reason=reason, radius=0.0, margin=margin[b])
            )
    return answers


def misclassified(query: Query) -> list[Answer | None]:
    """FALSIFIED, with the input itself as witness, where the clean prediction is not the label.

    An input that only rounding to its dtype brought into the region is no member of it, and no witness.
    """
    wrong = query.prediction != query.y
    if bool(wrong.any()):
        wrong = wrong & query.region.contains(query.x)
    return [
        Answer(
            verdict=Verdict.FALSIFIED, reason=Reason.MISCLASSIFIED, radius=0.0, witness=query.x[b]
        )
        if known
        else None
        for b, known in enumerate(wrong.tolist())
    ]


def rechecked(query: Query, answers: list[Answer]) -> list[Answer]:
    """Answers whose witnesses lie in the region and are wrong on the original model; others are UNKNOWN.

    Witnesses are replayed together and one by one (`margins`); those against another classifier, whose
    answers bring its prediction, were judged by it and must lie in the region alone. Raises
    ContradictionError where an input is said to be verified that the model misclassifies.
    """
    claimed = [a.verdict is Verdict.VERIFIED and a.prediction is None for a in answers]
    wrong = query.prediction != query.y
    if bool((torch.tensor(claimed, device=wrong.device) & wrong).any()):
        raise ContradictionError("a certifier verified an input that the model misclassifies")
    held = [b for b, a in enumerate(answers) if a.witness is not None]
    if not held:
        return answers
    points = torch.stack([w for a in answers if (w := a.witness) is not None])
    rows = torch.tensor(held, device=points.device)
    inside = query.region.select(rows).contains(points)
    kept, points = rows[inside], points[inside]
    other = torch.tensor(
        [answers[b].prediction is not None for b in kept], device=kept.device
    ).bool()
    true = set(kept[other].tolist())
    kept = kept[~other]
    if len(kept):
        broken = margins(query.model.original, points[~other], query.y[kept]) <= 0
        true |= set(kept[broken].tolist())
    return [
        replace(a, verdict=Verdict.UNKNOWN, reason=Reason.LOOSE, radius=0.0, witness=None)
        if a.witness is not None and b not in true
        else a
        for b, a in enumerate(answers)
    ]
