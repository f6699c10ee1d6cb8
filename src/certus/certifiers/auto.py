"""The cheapest method that decides each input: attack and proofs in order of cost."""

import time
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch

from certus.attacks import PGD, Attack
from certus.bounding import IBP, Crown
from certus.certifiers.attack import AttackCertifier
from certus.certifiers.base import Certifier, Query, misclassified
from certus.certifiers.bounds import BoundCertifier
from certus.certifiers.lipschitz import LipschitzCertifier
from certus.certifiers.milp import MilpCertifier
from certus.core import Answer, Reason, UnsupportedError, Verdict
from certus.core.validate import positive
from certus.graph.op import Affine

_MILP_NEURONS = 1000  # beyond this HiGHS rarely finishes, so no time is spent on it


@dataclass(frozen=True, kw_only=True)
class AutoCertifier(Certifier):
    """IBP, then the Lipschitz bound, CROWN, an attack, and MILP, each on what is still undecided.

    timeout is seconds for the whole call; MILP shares what is left among the open inputs. A method
    that cannot handle the network or the threat is skipped. Every answer is a proof or a replayed
    counterexample, as from the method that gave it.
    """

    name: ClassVar[str] = "auto"
    gives_radius: ClassVar[bool] = False
    timeout: float = 60.0
    attack: Attack = field(default_factory=PGD)

    def __post_init__(self) -> None:
        """Validate."""
        positive(self.timeout, "timeout")

    def run(self, query: Query) -> list[Answer]:
        """Stage after stage."""
        end = time.perf_counter() + self.timeout
        unknown = Answer(verdict=Verdict.UNKNOWN, reason=Reason.LOOSE, radius=0.0)
        answers = [known or unknown for known in misclassified(query)]
        stages: tuple[Certifier, ...] = (
            BoundCertifier(method=IBP()),
            LipschitzCertifier(),
            BoundCertifier(method=Crown()),
            AttackCertifier(attack=self.attack),
        )
        for stage in stages:
            if stage.accepts(query.model, query.threat) is None:
                self._stage(stage, query, answers, end)
        self._exact(query, answers, end)
        return answers

    def _stage(self, stage: Certifier, query: Query, answers: list[Answer], end: float) -> None:
        """Let one method answer the open inputs, in its own block size."""
        for part in _open(answers).split(stage.block):
            if len(part) == 0 or _late(answers, part, end):
                return
            try:
                found = stage.run(query.select(part))
            except UnsupportedError:  # it shows in the course of the work
                return
            for b, answer in zip(part.tolist(), found, strict=True):
                if answer.reason is not Reason.SURVIVED:  # which says less than what is known
                    answers[b] = _own_radius(query, b, answer)
            query.progress(len(answers) - len(_open(answers)), len(answers), stage.name)

    def _exact(self, query: Query, answers: list[Answer], end: float) -> None:
        """MILP on small networks, with a share of the time for each open input."""
        neurons = sum(n.numel for n in query.graph.nodes[1:] if not isinstance(n.op, Affine))
        refused = MilpCertifier().accepts(query.model, query.threat)
        if neurons > _MILP_NEURONS or refused is not None:
            return
        left = _open(answers).tolist()
        for done, b in enumerate(left):
            share = (end - time.perf_counter()) / (len(left) - done)
            if share <= 0:
                _late(answers, torch.tensor(left[done:]), end)
                return
            try:
                stage = MilpCertifier(timeout=share)
                answers[b] = stage.run(query.select(torch.tensor([b])))[0]
            except UnsupportedError:
                return
            query.progress(len(answers) - len(_open(answers)), len(answers), stage.name)


def _open(answers: list[Answer]) -> torch.Tensor:
    """Positions that are still UNKNOWN."""
    return torch.tensor(
        [b for b, a in enumerate(answers) if a.verdict is Verdict.UNKNOWN], dtype=torch.long
    )


def _late(answers: list[Answer], left: torch.Tensor, end: float) -> bool:
    """Whether the time is up; then the open inputs say so."""
    if time.perf_counter() < end:
        return False
    for b in left.tolist():
        answers[b] = replace(answers[b], reason=Reason.TIMEOUT)
    return True


def _own_radius(query: Query, b: int, answer: Answer) -> Answer:
    """`auto` decides one threat, so its radius is the threat's; what was not proven counts nothing."""
    if answer.verdict is Verdict.VERIFIED:
        return replace(answer, radius=float(query.radius[b]))
    if answer.verdict is Verdict.UNKNOWN:
        reason = answer.reason if answer.reason is Reason.ROUNDING else Reason.LOOSE
        return replace(answer, radius=0.0, reason=reason)
    return answer
