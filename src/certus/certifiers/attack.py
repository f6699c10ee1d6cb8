"""Attacks as members of the family: they refute, and prove nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor

from certus.attacks import FGSM, PGD, Attack
from certus.certifiers.base import Certifier, Query, misclassified
from certus.core import Answer, AttackResult, Model, Reason, Verdict
from certus.core.claim import ATTACK
from certus.core.kinds import to_json
from certus.threats import Threat

ATTACKS: dict[str, type[Attack]] = {kind.name: kind for kind in (PGD, FGSM)}


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
class AttackCertifier(Certifier):
    """FALSIFIED where an attack finds an input of the region that the model gets wrong; never VERIFIED.

    What withstands is UNKNOWN (SURVIVED). Raises ArgumentError where the attack's settings cannot be
    told (`core.kinds`).
    """

    kind: ClassVar[str] = ATTACK
    gives_radius: ClassVar[bool] = False
    attack: Attacks
    block: int = 256

    def __post_init__(self) -> None:
        """Refuse an attack whose settings cannot be told: rows are keyed by them."""
        to_json(self.attack)

    @property
    def name(self) -> str:
        """The attack's."""
        return self.attack.name

    def accepts(self, model: Model, threat: Threat) -> str | None:
        """Whatever can be called."""
        return None

    def run(self, query: Query) -> list[Answer]:
        """One attack on all inputs."""
        found = self.attack(query.model, query.x, query.y, query.region, query.ids)
        return [
            known or (fallen(point) if success else SURVIVED)
            for known, success, point in zip(
                misclassified(query), found.success.tolist(), found.inputs, strict=True
            )
        ]


SURVIVED = Answer(verdict=Verdict.UNKNOWN, reason=Reason.SURVIVED, radius=0.0)


def fallen(point: Tensor) -> Answer:
    """FALSIFIED by a point of the region."""
    return Answer(verdict=Verdict.FALSIFIED, reason=Reason.ATTACKED, radius=0.0, witness=point)
