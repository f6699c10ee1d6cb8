"""AttackRunner: an attack as something that can be evaluated like a certifier."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from certus.core import (
    ArgumentError,
    AttackResult,
    Certificates,
    Progress,
    Reason,
    Verdict,
    validate,
)
from certus.core.claim import ATTACK, Claim
from certus.core.kinds import text, to_json
from certus.core.progress import silent


class Attacks(Protocol):
    """What is asked of an attack (`certus.attacks.Attack`): a replayed counterexample or none."""

    @property
    def name(self) -> str:
        """Short name, such as `pgd`."""

    def __call__(
        self, model: Any, x: Tensor, y: Tensor, threat: Any, ids: Sequence[int] | None = None
    ) -> AttackResult:
        """Attack x [B, *shape] with label y [B]."""


@dataclass(frozen=True, kw_only=True)
class AttackRunner:
    """An attack in the shape of a certifier, so that its rows stand beside certificates.

    Verdicts are "falsified" (the clean input is misclassified, or a replayed counterexample lies in
    the region) and "unknown" (survived, which proves nothing); radius is 0 and margin NaN. An
    attack on a smoothed classifier takes the prefix "smoothed-", and the confidence of its
    predictions. Raises ArgumentError where the attack's repr does not state its configuration.
    """

    attack: Attacks
    prefix: str = ""
    block: int = 256
    confidence: float = 1.0
    gives_radius: ClassVar[bool] = False

    def __post_init__(self) -> None:
        validate.count(self.block, "block")
        if not 0 < self.confidence <= 1:
            raise ArgumentError(f"confidence must lie in (0, 1], got {self.confidence}")
        to_json(self.attack)  # rows are keyed by its settings

    @property
    def name(self) -> str:
        """Prefix and the attack's name."""
        return self.prefix + self.attack.name

    def __call__(
        self,
        model: Any,
        x: Tensor,
        y: Tensor,
        threat: Any,
        ids: Sequence[int] | None = None,
        progress: Progress = silent,
    ) -> Certificates:
        """Attack each input of x [B, *shape] with label y [B]."""
        start = time.perf_counter()
        with torch.no_grad():
            original = getattr(model, "original", model)  # a Graph is replayed on what it captured
            prediction = validate.logits(original(x), len(x)).argmax(1).cpu()
        found = self.attack(model, x, y, threat, ids)
        success = found.success.tolist()  # what was replayed; a clean mistake is one of them
        wrong = ((prediction != y.cpu()) & found.success.cpu()).tolist()
        reasons = [
            Reason.MISCLASSIFIED if w else Reason.ATTACKED if s else Reason.SURVIVED
            for w, s in zip(wrong, success, strict=True)
        ]
        progress(len(x), len(x), self.name)
        return Certificates(
            prediction=prediction,
            verdict=[Verdict.FALSIFIED if s else Verdict.UNKNOWN for s in success],
            reason=list(reasons),
            radius=torch.zeros(len(x)),
            margin=torch.full((len(x),), float("nan")),
            method=self.name,
            threat=threat.describe(),
            confidence=self.confidence,
            seconds=torch.full(
                (len(x),), (time.perf_counter() - start) / len(x), dtype=torch.float64
            ),
            witness=[found.inputs[b] if success[b] else None for b in range(len(x))],
        )

    def claim(self, threat: str) -> Claim:
        """That of an attack on the network."""
        return Claim(kind=ATTACK, threat=threat, method=self.name, settings=text(self))
