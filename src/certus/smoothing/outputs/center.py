"""Center smoothing: outputs in any metric space, with a ball around the answer that attacks cannot leave."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.special import bdtr
from torch import Tensor

from certus.core import ArgumentError, Progress, validate
from certus.core.kinds import to_json
from certus.core.progress import silent
from certus.core.results import statistical
from certus.smoothing.draws import ESTIMATE, PREDICT, SELECT
from certus.smoothing.outputs.order import ordered, upper_order
from certus.smoothing.outputs.sampled import Sampled
from certus.smoothing.outputs.shift import shift_of
from certus.smoothing.statistics import lower_bound

Metric = Callable[[Tensor, Tensor], Tensor]

_SLACK = 1e-6  # relative: how far rounding may break a triangle


@dataclass(frozen=True, eq=False, kw_only=True)
class Centers:
    """Answers [B, *out] and how far an attack within `radius` moves them.

    reach float64 [B] is the radius R around `center` that holds more than half of the outputs wherever
    the input moves within `radius` (norm `threat`, input units); inf where n is too small. drift = 3 R
    bounds the distance to any answer of `predict` there, 2 R that to the exact center. Where the check
    of the answer failed, `abstained` [B], center is NaN and both are inf.
    """

    center: Tensor
    reach: Tensor
    abstained: Tensor
    radius: float
    threat: str
    confidence: float
    evidence: list[dict[str, Any]]

    @property
    def drift(self) -> Tensor:
        """Three times `reach`, rounded up."""
        return 3 * (1 + 1e-12) * self.reach


@dataclass(frozen=True, eq=False)
class CenterSmoothing(Sampled):
    """g(x) = the center of a small ball that holds half of what `module` gives to noisy copies of x.

    module is any callable [N, *rows] -> [N, *out]; the rest is as for `Sampled`. metric(one [*out],
    many [m, *out]) -> distances [m] is symmetric and satisfies the triangle inequality; both are tried
    on samples. noise as for `SmoothedRegression`.

    The answer (Kumar and Goldstein 2021, algorithm 1) is that of `candidates` samples whose distance
    to half of n0 samples is smallest, and fresh samples must show that the ball around it has mass
    above 1/2 - margin; otherwise g abstains.

    Proof of the factor 3 (theorem 2 there). Let the ball of radius R around c have mass at least
    1/2 + margin at x'. With chance 1 - alpha / 4 it holds a candidate and half of the samples drawn at
    x', all of them within 2 R of that candidate: the answer c' at x' has a ball of radius at most 2 R.
    The check shows, wrong with chance alpha / 4, that this ball has mass above 1/2 - margin, so the two
    balls meet and d(c, c') <= R + 2 R. The radius R is an order statistic of distances from c of fresh
    samples at x, for the mass that still is 1/2 + margin after a shift; it fails with chance alpha / 2,
    for all x' at once. (The center of the smallest ball with half of the mass lies within 2 R of c.)
    """

    metric: Metric
    margin: float = field(default=0.05, kw_only=True)
    candidates: int = field(default=32, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse what `Sampled` refuses, noise without a bound for shifts, and margins outside (0, 1/2)."""
        super().__post_init__()
        shift_of(self.noise)
        if not callable(self.metric):
            raise ArgumentError(f"metric must be callable, got {type(self.metric).__name__}")
        if not (isinstance(self.margin, float) and 0 < self.margin < 0.5):
            raise ArgumentError(f"margin must lie strictly between 0 and 0.5, got {self.margin!r}")
        validate.count(self.candidates, "candidates")

    def predict(
        self,
        x: Tensor,
        n0: int = 5000,
        alpha: float = 1e-3,
        ids: Sequence[int] | None = None,
        progress: Progress = silent,
    ) -> Tensor:
        """The answer for each input of x [B, *shape]: [B, *out], NaN where it abstains.

        2 n0 samples for each: n0 choose a center, n0 check it. Raises ArgumentError (also where n0 is
        too small for margin and alpha) and ModelError.
        """
        self._check(n0, alpha)
        x, keys, like = self.ready(x, ids)
        return self._answers(x, keys, like, n0, alpha, progress, 2 * len(x) * n0)

    def certify(
        self,
        x: Tensor,
        radius: float,
        n0: int = 5000,
        n: int = 20_000,
        alpha: float = 1e-3,
        ids: Sequence[int] | None = None,
        progress: Progress = silent,
    ) -> Centers:
        """The answer of `predict` (same draws), and how far attacks within `radius` >= 0 move it.

        For each x' in reach, d(center, predict(x')) <= drift unless it abstains, wrong with chance at
        most alpha over the draws at x and x'; predict must use at least this n0, this alpha and other
        draws. n samples bound the reach. progress counts samples. Raises as `predict` does.
        """
        if not (isinstance(radius, int | float) and 0 <= radius < float("inf")):
            raise ArgumentError(f"radius must be a finite number >= 0, got {radius!r}")
        validate.count(n, "n")
        self._check(n0, alpha)
        x, keys, like = self.ready(x, ids)
        total, before = len(x) * (2 * n0 + n), 2 * len(x) * n0
        center = self._answers(x, keys, like, n0, alpha, progress, total)
        rank = upper_order(
            n, shift_of(self.noise).most(0.5 + self.margin, float(radius)), alpha / 2
        )
        reach = []
        with self.evaluator(x, keys, ESTIMATE, n) as evaluator:
            drawn = self.drawn(
                evaluator,
                keys,
                like,
                n,
                ESTIMATE,
                lambda rows: progress(before + rows, total, "reach"),
            )
            for own, values in zip(center, drawn, strict=True):
                known = not bool(torch.isnan(own).any())
                far = self.distances(own, torch.from_numpy(values)) if known else np.full(n, np.inf)
                reach.append(float(ordered(far, rank)[0]))
        abstained = center.flatten(1).isnan().any(1) if center.ndim > 1 else center.isnan()
        settings = {
            "noise": to_json(self.noise),
            "seed": self.seed,
            "n0": n0,
            "n": n,
            "alpha": alpha,
        }
        settings |= {"margin": self.margin, "candidates": self.candidates, "rank": rank}
        return Centers(
            center=center,
            reach=torch.tensor(reach, dtype=torch.float64),
            abstained=abstained,
            radius=float(radius),
            threat=self.noise.norm,
            confidence=statistical(alpha),
            evidence=[settings | {"id": key} for key in keys],
        )

    def distances(self, one: Tensor, many: Tensor) -> np.ndarray:
        """Distances [m] in float64 from one output to many [m, *out]; ArgumentError for what is none."""
        found = self.metric(one, many)
        if not isinstance(found, Tensor) or tuple(found.shape) != (len(many),):
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ArgumentError(f"metric must return distances [{len(many)}], got {got}")
        if not bool((torch.isfinite(found) & (found >= 0)).all()):
            raise ArgumentError("metric must return finite distances >= 0")
        return found.detach().double().cpu().numpy()

    def _answers(
        self,
        x: Tensor,
        keys: list[int],
        like: Tensor,
        n0: int,
        alpha: float,
        progress: Progress,
        total: int,
    ) -> Tensor:
        """Centers, NaN where the check fails."""
        first = len(x) * n0
        with self.evaluator(x, keys, SELECT, 2 * n0) as evaluator:
            chosen = [
                self._center(torch.from_numpy(values))
                for values in self.drawn(
                    evaluator, keys, like, n0, SELECT, lambda rows: progress(rows, total, "center")
                )
            ]
            drawn = self.drawn(
                evaluator,
                keys,
                like,
                n0,
                PREDICT,
                lambda rows: progress(first + rows, total, "check"),
            )
            inside = [
                int((self.distances(own, torch.from_numpy(values)) <= size).sum())
                for (own, size), values in zip(chosen, drawn, strict=True)
            ]
        sure = lower_bound(np.array(inside), n0, alpha / 4) > 0.5 - self.margin
        nan = torch.full_like(like, float("nan"))
        return torch.stack([own if s else nan for (own, _), s in zip(chosen, sure, strict=True)])

    def _center(self, values: Tensor) -> tuple[Tensor, float]:
        """The candidate nearest to half of the samples [n0, *out], and how near that is."""
        some = values[: self.candidates]
        far = np.stack([self.distances(one, values) for one in some])
        self._try_metric(far[:, : len(some)])
        half = (len(values) + 1) // 2
        size = np.partition(far, half - 1, axis=1)[:, half - 1]
        best = int(size.argmin())
        return some[best].clone(), float(size[best])

    def _try_metric(self, far: np.ndarray) -> None:
        """ArgumentError where distances [m, m] break what the proof needs of a metric."""
        room = _SLACK * (1 + far.max())
        if (np.abs(far - far.T) > room).any():
            raise ArgumentError("metric is not symmetric: d(a, b) and d(b, a) differ")
        if (far[:, None] > far[:, :, None] + far[None] + room).any():
            raise ArgumentError(
                "metric breaks the triangle inequality d(a, c) <= d(a, b) + d(b, c) on samples"
            )

    def _check(self, n0: int, alpha: float) -> None:
        """Whether n0 samples bring the answer near a ball of mass 1/2 + margin, but for alpha / 4."""
        validate.count(n0, "n0")
        validate.probability(alpha, "alpha")
        half = (n0 + 1) // 2
        missed = (0.5 - self.margin) ** min(self.candidates, n0)
        if float(bdtr(half - 1, n0, 0.5 + self.margin)) + missed > alpha / 4 * (1 - 1e-9):
            raise ArgumentError(
                f"n0 = {n0} samples and {self.candidates} candidates are too few for margin "
                f"{self.margin} and alpha {alpha:g}: take more, or a larger margin"
            )
