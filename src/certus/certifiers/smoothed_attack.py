"""An attack on the smoothed classifier, the empirical counterpart of its certificates."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from certus.attacks import PGD
from certus.certifiers.attack import SURVIVED, fallen
from certus.certifiers.base import Certifier, Query
from certus.core import Answer, Model, Reason
from certus.core.claim import ATTACK, smoothed_by
from certus.core.validate import count, probability
from certus.smoothing import Gaussian, Noise, Smoothed
from certus.threats import Threat


@dataclass(frozen=True, kw_only=True)
class SmoothedAttackCertifier(Certifier):
    """PGD on the mean softmax under noise (Salman et al. 2019); success is judged by PREDICT.

    FALSIFIED: with confidence 1 - alpha the smoothed classifier gives another class than the label
    on the attacked input (or on the clean one; each of the two predictions spends half of alpha).
    samples noise draws guide the attack, n judge it. The prediction is the smoothed classifier's.
    """

    name: ClassVar[str] = "smoothed-pgd"
    kind: ClassVar[str] = ATTACK
    gives_radius: ClassVar[bool] = False
    noise: Noise = field(default_factory=lambda: Gaussian(0.25))
    samples: int = 16
    n: int = 1000
    alpha: float = 1e-3
    attack: PGD = field(default_factory=lambda: PGD(steps=20, restarts=1))
    seed: int = 1
    block: int = 32

    def __post_init__(self) -> None:
        """Validate."""
        probability(self.alpha, "alpha")
        count(self.samples, "samples")
        count(self.n, "n")

    @property
    def chance(self) -> float:
        """alpha."""
        return self.alpha

    @property
    def subject(self) -> str:
        """The smoothed classifier."""
        return smoothed_by(self.noise)

    def accepts(self, model: Model, threat: Threat) -> str | None:
        """Whatever can be called, under noise that gradients pass."""
        return None if self.noise.additive else f"{self.noise!r:.120} has no gradient to follow"

    def run(self, query: Query) -> list[Answer]:
        """Attack, then predict on the clean and the attacked inputs."""
        classes = query.logits.shape[1]
        g = Smoothed(query.model.original, self.noise, classes, seed=self.seed)
        clean = g.predict(query.x, self.n, self.alpha / 2, query.ids)
        # one noise for all rows: what is attacked answers each row by itself, wherever it stands
        guide = replace(g, shared=True)
        found = self.attack(
            lambda points: guide.expected(points, self.samples),
            query.x,
            query.y,
            query.region,
            query.ids,
        )
        moved = g.predict(found.inputs, self.n, self.alpha / 2, query.ids)
        label = query.y.cpu()
        wrong = (clean >= 0) & (clean != label) & query.region.contains(query.x).cpu()
        fooled = (moved >= 0) & (moved != label) & query.region.contains(found.inputs).cpu()
        answers = []
        for b, (w, f) in enumerate(zip(wrong.tolist(), fooled.tolist(), strict=True)):
            answer = fallen(query.x[b] if w else found.inputs[b]) if w or f else SURVIVED
            reason = Reason.MISCLASSIFIED if w else answer.reason
            answers.append(replace(answer, reason=reason, prediction=int(clean[b])))
        return answers
