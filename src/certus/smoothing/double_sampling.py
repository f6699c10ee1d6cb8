"""Double sampling: certificates from the counts under two laws of noise (Li, Zhang, Xie, Li and Li 2022)."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from certus.core import Answer, ArgumentError, Certificates, Progress, Reason, Verdict, validate
from certus.core.claim import smoothed_by
from certus.core.kinds import to_json
from certus.core.progress import silent
from certus.core.results import statistical
from certus.smoothing.draws import ESTIMATE, SECOND_LAW, SELECT
from certus.smoothing.noise.doubled import doubled_radius
from certus.smoothing.noise.general_gaussian import GeneralGaussian
from certus.smoothing.noise.truncated import Truncated
from certus.smoothing.smoothed import Smoothed
from certus.smoothing.statistics import lower_bound

Law = GeneralGaussian | Truncated


@dataclass(frozen=True, eq=False)
class DoubleSampling:
    """The smoothed classifier of `first`, certified with what samples of a second law add (DSRS).

    module, num_classes, seed and batch as for `Smoothed`. second is `first` with a smaller sigma,
    `first` cut to a ball (`Truncated`), or a function that chooses one from the lower bound of the
    class' probability under `first` (`fitted_cut` bound to it).

    The claim is that of Smoothed(module, first): the class of g, at an L2 radius that is never below
    that of the same lower bound alone, and 5 to 10% larger where the classifier errs far out only.
    """

    module: Callable[[Tensor], Tensor]
    first: GeneralGaussian
    second: Law | Callable[[float], Law]
    num_classes: int
    seed: int = field(default=0, kw_only=True)
    batch: int = field(default=256, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse laws that do not belong together, and what `Smoothed` refuses."""
        if not isinstance(self.first, GeneralGaussian):
            raise ArgumentError(f"first must be a GeneralGaussian, got {self.first!r}")
        if isinstance(self.second, Law):
            self.second.relative_to(self.first)
        elif not callable(self.second):
            raise ArgumentError(
                f"second must be a GeneralGaussian, a Truncated or a function, got {self.second!r}"
            )
        self._smoothed(self.first)

    def certify(
        self,
        x: Tensor,
        n0: int = 100,
        n: int = 50_000,
        n2: int = 50_000,
        alpha: float = 1e-3,
        ids: Sequence[int] | None = None,
        progress: Progress = silent,
    ) -> Certificates:
        """Predict and certify each input of x [B, *shape].

        n0 samples of `first` choose a class, n more bound its probability from below at level
        alpha / 2, n2 of the second law there at the other alpha / 2 (none where the class has no
        proven majority). VERIFIED: g gives `prediction` everywhere within `radius` (L2, input units),
        wrong with chance at most alpha for each input (both bounds hold but for that, whatever the
        second law was chosen by: its samples are fresh). Otherwise UNKNOWN (ABSTAINED), prediction -1,
        radius 0. evidence[b] has the counts and both bounds; `first_radius` is that of `first`
        alone at its alpha / 2. progress counts samples. Raises ArgumentError and ModelError.
        """
        started = time.perf_counter()
        validate.probability(alpha, "alpha")
        validate.count(n2, "n2")
        x = validate.inputs(x)
        if validate.count(n0, "n0") > validate.count(n, "n"):
            raise ArgumentError(f"n0 ({n0}) must not exceed n ({n}): n0 only chooses the class")
        smoothed, total = self._smoothed(self.first), len(x) * (n0 + n + n2)
        chosen = smoothed.counts(x, n0, ids, SELECT, _after(progress, 0, total)).argmax(1)
        done = len(x) * n0
        counts = smoothed.counts(x, n, ids, ESTIMATE, _after(progress, done, total))
        hits = counts.gather(1, chosen[:, None])[:, 0].numpy()
        lower = lower_bound(hits, n, alpha / 2)
        settings: dict[str, Any] = {"n0": n0, "n": n, "n2": n2, "alpha": alpha, "seed": self.seed}
        settings |= {"noise": to_json(self.first), "shape": list(x.shape[1:])}
        evidence = []
        for b, key in enumerate(range(len(x)) if ids is None else ids):
            own = settings | {"id": int(key), "class": int(chosen[b])}
            own |= {"counts": counts[b].tolist(), "probability": float(lower[b])}
            report = _after(progress, len(x) * (n0 + n) + b * n2, total)
            evidence.append(own | self._second(x[b : b + 1], own, report))
        return Certificates.of(
            [_answer(record) for record in evidence],
            method="double-sampling",
            threat=GeneralGaussian.norm,
            seconds=time.perf_counter() - started,
            confidence=statistical(alpha),
            subject=smoothed_by(self.first),
        )

    def _second(self, x: Tensor, known: dict[str, Any], report: Progress) -> dict[str, Any]:
        """What the second law adds for one input: its counts and bound, and both radii."""
        lower, chosen, n2 = known["probability"], known["class"], known["n2"]
        if lower <= 0.5:
            report(n2, n2)
            return {"n2": 0, "first_radius": 0.0, "radius": 0.0}
        law = self.second if isinstance(self.second, Law) else self.second(lower)
        law.relative_to(self.first)
        counts = self._smoothed(law).counts(x, n2, [known["id"]], SECOND_LAW, report)[0]
        other = float(lower_bound(int(counts[chosen]), n2, known["alpha"] / 2))
        return {
            "second": to_json(law),
            "second_counts": counts.tolist(),
            "second_probability": other,
            "first_radius": float(self.first.radius(lower)),
            "radius": doubled_radius(self.first, law, lower, other),
        }

    def _smoothed(self, law: Law) -> Smoothed:
        return Smoothed(self.module, law, self.num_classes, seed=self.seed, batch=self.batch)


def _answer(record: dict[str, Any]) -> Answer:
    """The class and the radius of the evidence."""
    settled = 0 < record["radius"] < math.inf
    return Answer(
        verdict=Verdict.VERIFIED if settled else Verdict.UNKNOWN,
        reason=None if settled else Reason.ABSTAINED,
        radius=record["radius"] if settled else 0.0,
        prediction=record["class"] if settled else -1,
        evidence=record,
    )


def _after(progress: Progress, before: int, total: int) -> Progress:
    """Report one stage as a part of the whole."""
    return lambda done, *_: progress(before + done, total)
