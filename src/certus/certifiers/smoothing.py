"""Certification of the smoothed classifier (Cohen, Rosenfeld and Kolter 2019)."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from certus.certifiers.base import Answer, Certifier, Query, within
from certus.core import ArgumentError, Reason, Verdict
from certus.core.validate import count, probability
from certus.smoothing import Gaussian, Noise, Smoothed


@dataclass(frozen=True, kw_only=True)
class SmoothingCertifier(Certifier):
    """VERIFIED where the smoothed classifier predicts the label within more than the threat's reach.

    The claim is about the smoothed classifier, not the network, and holds for each input with
    confidence 1 - alpha. n0 samples choose the class, n fresh ones bound its probability. An input
    on which it abstains, or predicts another class, is UNKNOWN.
    """

    name: ClassVar[str] = "smoothing"
    gives_radius: ClassVar[bool] = True
    needs: ClassVar[str] = "any classifier; made for networks trained with noise"
    block: int = 16
    noise: Noise = field(default_factory=lambda: Gaussian(0.25))
    n0: int = 100
    n: int = 10_000
    alpha: float = 1e-3
    seed: int = 0
    batch: int = 1024

    def __post_init__(self) -> None:
        """Validate."""
        probability(self.alpha, "alpha")
        if count(self.n0, "n0") > count(self.n, "n"):
            raise ArgumentError(f"n0 ({self.n0}) must not exceed n ({self.n})")
        if self.noise.norm != "l2":
            raise ArgumentError(f"radii of {self.noise.norm} noise cannot be converted here")

    @property
    def confidence(self) -> float:
        """1 - alpha."""
        return 1.0 - self.alpha

    def smoothed(self, query: Query) -> Smoothed:
        """The smoothed classifier that is certified."""
        classes = query.logits.shape[1]
        return Smoothed(query.graph.original, self.noise, classes, seed=self.seed, batch=self.batch)

    def run(self, query: Query) -> list[Answer]:
        """CERTIFY, then compare with the label and the threat."""
        found = self.smoothed(query).certify(
            query.x, self.n0, self.n, self.alpha, query.ids, query.progress
        )
        answers = within(query, found.radius)
        return [
            _labelled(a, p, y)
            for a, p, y in zip(answers, found.prediction.tolist(), query.y.tolist(), strict=True)
        ]


def _labelled(answer: Answer, prediction: int, label: int) -> Answer:
    """An abstention or another class than the label certifies nothing about the label."""
    if prediction == label:
        return replace(answer, prediction=prediction)
    reason = Reason.ABSTAINED if prediction < 0 else Reason.WRONG_CLASS
    return Answer(verdict=Verdict.UNKNOWN, reason=reason, radius=0.0, prediction=prediction)
