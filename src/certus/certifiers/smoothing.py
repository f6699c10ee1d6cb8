"""Certification of the smoothed classifier (Cohen, Rosenfeld and Kolter 2019)."""

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from certus.certifiers.base import Certifier, Query
from certus.certifiers.reach import out_of_reach, within
from certus.core import Answer, ArgumentError, Model, Reason, Verdict
from certus.core.claim import smoothed_by
from certus.core.validate import count, probability
from certus.graph import Graph
from certus.smoothing import Derandomized, Gaussian, Noise, Rule, Smoothed
from certus.smoothing.rules import Fixed, Path
from certus.threats import Threat


@dataclass(frozen=True, kw_only=True)
class SmoothingCertifier(Certifier):
    """VERIFIED where the smoothed classifier predicts the label within more than the threat's reach.

    The claim is about the smoothed classifier, not the network, and holds for each input with
    confidence 1 - alpha, or surely where the noise is a Derandomized set of copies. An input on which
    it abstains, or predicts another class, is UNKNOWN.

    noise (by default Gaussian(0.25)) and rule are those of `Smoothed.certify`; the noise's norm
    must be the threat's or convert to it. n0 and n are those of the default rule; another rule
    brings its own. shared: all inputs of a block take the same draws, and the graph may be taken
    apart, which is faster; certificates of a block are then dependent, each as valid as before.
    quantised: the adversary, too, can only choose values on the grid of the noise; noises whose
    proof says no more are refused without it.
    """

    name: ClassVar[str] = "smoothing"
    gives_radius: ClassVar[bool] = True
    block: int = 16
    noise: Noise | Derandomized = field(default_factory=lambda: Gaussian(0.25))
    n0: int = 100
    n: int = 10_000
    alpha: float = 1e-3
    seed: int = 0
    batch: int = 256
    rule: Rule | None = None
    shared: bool = False
    quantised: bool = False

    def __post_init__(self) -> None:
        """Validate."""
        probability(self.alpha, "alpha")
        if count(self.n0, "n0") > count(self.n, "n"):
            raise ArgumentError(f"n0 ({self.n0}) must not exceed n ({self.n})")
        if getattr(self.noise, "levels", None) and not self.quantised:
            raise ArgumentError(
                f"{self.noise!r:.120} proves nothing about values off its grid; where the adversary is "
                "bound to the grid as well (8-bit images), say so by quantised=True (--quantised)"
            )

    @property
    def chance(self) -> float:
        """alpha; 0 where nothing is left to chance."""
        return 0.0 if isinstance(self.noise, Derandomized) else self.alpha

    @property
    def norm(self) -> str:
        """That of the noise."""
        return self.noise.norm

    @property
    def subject(self) -> str:
        """The smoothed classifier."""
        return smoothed_by(self.noise)

    def most(self, shape: tuple[int, ...], classes: int) -> float:
        """No input of this shape gets a larger radius (in `norm`): that of copies which all agree.

        Raises ArgumentError where the rule asks for more than the noise can prove.
        """
        if isinstance(self.noise, Derandomized):
            counts = np.zeros((1, classes), dtype=np.int64)
            counts[0, 0] = self.noise.copies(shape)
            return float(self.noise.proven(counts, shape)[0])
        rule = self.rule or Fixed(n0=self.n0, n=self.n)
        taken = np.array(rule.looks())
        counts = np.zeros((len(taken), classes), dtype=np.int64)
        counts[:, 0] = taken
        path = Path(taken, counts, 0, float(np.nextafter(1.0, 0.0)))
        found = rule.judge(path, self.noise, self.alpha)
        return float(self.noise.radius(found.lower, found.upper)) if found else math.inf

    def accepts(self, model: Model, threat: Threat) -> str | None:
        """Whatever can be called, under a threat that radii of the noise say something about."""
        return out_of_reach(self.norm, threat.norm)

    def smoothed(self, query: Query) -> Smoothed:
        """The smoothed classifier that is certified."""
        graph = query.model if isinstance(query.model, Graph) else None
        taken = query.model if self.shared else query.model.original
        return Smoothed(
            taken,
            self.noise,
            query.logits.shape[1],
            seed=self.seed,
            batch=self.batch,
            shared=self.shared,
            graph=graph,
        )

    def run(self, query: Query) -> list[Answer]:
        """CERTIFY, then compare with the label and the threat."""
        found = self.smoothed(query).certify(
            query.x, self.n0, self.n, self.alpha, query.ids, query.progress, self.rule
        )
        answers = within(query, found.radius, self.noise.norm)
        return [
            _labelled(*parts)
            for parts in zip(
                answers, found.prediction.tolist(), query.y.tolist(), found.evidence, strict=True
            )
        ]


def _labelled(answer: Answer, prediction: int, label: int, evidence: dict[str, Any]) -> Answer:
    """An abstention or another class than the label certifies nothing about the label."""
    if prediction == label:
        return replace(answer, prediction=prediction, evidence=evidence)
    reason = Reason.ABSTAINED if prediction < 0 else Reason.WRONG_CLASS
    return Answer(
        verdict=Verdict.UNKNOWN,
        reason=reason,
        radius=0.0,
        prediction=prediction,
        evidence=evidence,
    )
