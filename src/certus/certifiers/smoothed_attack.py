"""An attack on the smoothed classifier, the empirical counterpart of its certificates."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from certus.attacks import PGD
from certus.core import Certificates, Progress, Reason, Verdict
from certus.core.claim import ATTACK, Claim, smoothed
from certus.core.kinds import text
from certus.core.progress import silent
from certus.core.results import statistical
from certus.core.validate import count, probability
from certus.graph import Graph
from certus.smoothing import Gaussian, Noise, Smoothed
from certus.threats import Threat


@dataclass(frozen=True, kw_only=True)
class SmoothedAttack:
    """PGD on the mean softmax under noise (Salman et al. 2019); success is judged by PREDICT.

    FALSIFIED: with confidence 1 - alpha the smoothed classifier gives another class than the label
    on the attacked input (or on the clean one; each of the two predictions spends half of alpha).
    samples noise draws guide the attack, n judge it.
    """

    name: ClassVar[str] = "smoothed-pgd"
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

    def claim(self, threat: str) -> Claim:
        """That of an attack on the smoothed classifier."""
        return Claim(
            kind=ATTACK,
            subject=smoothed(self.noise),
            threat=threat,
            alpha=self.alpha,
            method=self.name,
            settings=text(self),
        )

    def __call__(
        self,
        model: Graph,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        ids: Sequence[int] | None = None,
        progress: Progress = silent,
    ) -> Certificates:
        """Attack each input; prediction is the smoothed classifier's on the clean input."""
        start = time.perf_counter()
        g = Smoothed(model.original, self.noise, model.output_shape[0], seed=self.seed)
        clean = g.predict(x, self.n, self.alpha / 2, ids)
        # one noise for all rows: what is attacked answers each row by itself, wherever it stands
        guide = replace(g, shared=True)
        found = self.attack(lambda points: guide.expected(points, self.samples), x, y, threat, ids)
        moved = g.predict(found.inputs, self.n, self.alpha / 2, ids)
        label = y.cpu()
        region = threat.region(x)
        wrong = (clean >= 0) & (clean != label) & region.contains(x).cpu()
        fooled = (moved >= 0) & (moved != label) & region.contains(found.inputs).cpu()
        reasons = [
            Reason.MISCLASSIFIED if w else Reason.ATTACKED if f else Reason.SURVIVED
            for w, f in zip(wrong.tolist(), fooled.tolist(), strict=True)
        ]
        size = len(x)
        progress(size, size, self.name)
        return Certificates(
            prediction=clean,
            verdict=[
                Verdict.UNKNOWN if r is Reason.SURVIVED else Verdict.FALSIFIED for r in reasons
            ],
            reason=list(reasons),
            radius=torch.zeros(size, dtype=torch.float64),
            margin=torch.full((size,), float("nan"), dtype=torch.float64),
            method=self.name,
            threat=threat.describe(),
            confidence=statistical(self.alpha),
            seconds=torch.full((size,), (time.perf_counter() - start) / size, dtype=torch.float64),
            witness=[
                None
                if r is Reason.SURVIVED
                else x[b]
                if r is Reason.MISCLASSIFIED
                else found.inputs[b]
                for b, r in enumerate(reasons)
            ],
        )
