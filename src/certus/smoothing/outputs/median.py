"""Percentile smoothing: certified intervals for real-valued outputs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certus.core import ArgumentError, Progress, validate
from certus.core.kinds import to_json
from certus.core.progress import silent
from certus.core.results import statistical
from certus.smoothing.draws import ESTIMATE, SELECT
from certus.smoothing.outputs.order import middle_order, ordered, upper_order
from certus.smoothing.outputs.sampled import Sampled
from certus.smoothing.outputs.shift import Shift, shift_of
from certus.smoothing.statistics import lower_bound


@dataclass(frozen=True, eq=False, kw_only=True)
class Intervals:
    """Where g stays within `radius` of each input: lower <= g(x') <= upper, all float64 [B, *out].

    estimate is the samples' percentile, which lies in between; g(x) itself is known only up to the
    interval. A side that so few samples cannot bound is -inf or inf. radius is in the norm `threat`
    and input units. confidence is that of all outputs of an input together where `joint`, otherwise
    of each output.
    """

    estimate: Tensor
    lower: Tensor
    upper: Tensor
    radius: float
    threat: str
    confidence: float
    joint: bool
    evidence: list[dict[str, Any]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Tolerances:
    """How far |g(x') - center| <= tolerance holds: radius float64 [B, *out], 0 where nothing is proven.

    center float64 [B, *out] comes from samples of its own. The rest is as for `Intervals`.
    """

    center: Tensor
    tolerance: float
    radius: Tensor
    threat: str
    confidence: float
    joint: bool
    evidence: list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class SmoothedRegression(Sampled):
    """g(x) = a percentile of `module` under noise, coordinate by coordinate (the median by default).

    module is any callable [N, *rows] -> real values [N, *out]; the rest is as for `Sampled`. noise is
    additive and has a bound for shifts (`shift_of`): Gaussian, IntegerGaussian, AnisotropicGaussian,
    Laplace, Uniform.

    Where the input moves by r, the p-percentile stays between the percentiles F(F^-1(p) -+ r / scale)
    at the old place (Chiang et al. 2020, lemma 1; Gaussian: F = Phi, scale = sigma), which is tight
    for a linear module. Unlike a mean it needs no bounds of the module's values. Where several values
    are a p-percentile, what is claimed holds for all of them. joint: alpha is spent on all outputs of
    an input together (Bonferroni), otherwise on each.
    """

    percentile: float = field(default=0.5, kw_only=True)
    joint: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse what `Sampled` refuses, noise without a bound, and a percentile outside (0, 1)."""
        super().__post_init__()
        shift_of(self.noise)
        validate.probability(self.percentile, "percentile")

    def certify(
        self,
        x: Tensor,
        radius: float,
        n: int = 10_000,
        alpha: float = 1e-3,
        ids: Sequence[int] | None = None,
        progress: Progress = silent,
    ) -> Intervals:
        """An interval that holds g(x') for all x' within `radius` >= 0 of each input x [B, *shape].

        Order statistics of n samples, chosen by exact binomial tails, so that each end fails with
        chance at most alpha / 2 (over the number of outputs where joint), whatever the distribution.
        An end for which n is too small is infinite. Another radius with the same ids uses the same
        draws: each claim holds at its alpha, both together at the sum.
        progress counts samples. Raises ArgumentError and ModelError.
        """
        if not (isinstance(radius, int | float) and 0 <= radius < float("inf")):
            raise ArgumentError(f"radius must be a finite number >= 0, got {radius!r}")
        validate.count(n, "n")
        validate.probability(alpha, "alpha")
        x, keys, like = self.ready(x, ids)
        share = alpha / (2 * like.numel() if self.joint else 2)
        low, high = ranks(shift_of(self.noise), self.percentile, float(radius), n, share)
        total, found = len(x) * n, []
        with self.evaluator(x, keys, ESTIMATE, n) as evaluator:
            for values in self.drawn(
                evaluator, keys, like, n, ESTIMATE, lambda rows: progress(rows, total)
            ):
                middle = middle_order(n, self.percentile)
                found.append(ordered(values, low, middle, high))
        lower, estimate, upper = (
            torch.from_numpy(np.stack(part)) for part in zip(*found, strict=True)
        )
        settings = self._settings(n, alpha) | {"radius": float(radius), "ranks": [low, high]}
        return Intervals(
            estimate=estimate,
            lower=lower,
            upper=upper,
            radius=float(radius),
            threat=self.noise.norm,
            confidence=statistical(alpha),
            joint=self.joint,
            evidence=[settings | {"id": key} for key in keys],
        )

    def within(
        self,
        x: Tensor,
        tolerance: float,
        n0: int = 1000,
        n: int = 10_000,
        alpha: float = 1e-3,
        ids: Sequence[int] | None = None,
        progress: Progress = silent,
    ) -> Tolerances:
        """How far the input may move while g stays within `tolerance` > 0 of a center.

        n0 samples give the center, their percentile; n fresh ones count how often the module is above
        center - tolerance and below center + tolerance. Clopper-Pearson at alpha / 2 for each (over
        the number of outputs where joint) and the shift bound give the radius, which fails with
        chance at most alpha. progress counts samples. Raises ArgumentError and ModelError.
        """
        validate.positive(tolerance, "tolerance")
        validate.probability(alpha, "alpha")
        if validate.count(n0, "n0") > validate.count(n, "n"):
            raise ArgumentError(f"n0 ({n0}) must not exceed n ({n}): n0 only chooses the center")
        x, keys, like = self.ready(x, ids)
        share = alpha / (2 * like.numel() if self.joint else 2)
        first, total = len(x) * n0, len(x) * (n0 + n)
        with self.evaluator(x, keys, SELECT, n0 + n) as evaluator:
            middle = middle_order(n0, self.percentile)
            centers = [
                ordered(values, middle)[0]
                for values in self.drawn(
                    evaluator,
                    keys,
                    like,
                    n0,
                    SELECT,
                    lambda rows: progress(rows, total, "selection"),
                )
            ]
            drawn = self.drawn(
                evaluator,
                keys,
                like,
                n,
                ESTIMATE,
                lambda rows: progress(first + rows, total, "estimation"),
            )
            sides = np.stack(
                [
                    np.stack([(v >= c - tolerance).sum(0), (v <= c + tolerance).sum(0)])
                    for v, c in zip(drawn, centers, strict=True)
                ]
            )  # [B, 2, *out]
        shift, needed = shift_of(self.noise), (1.0 - self.percentile, self.percentile)
        bounds = lower_bound(sides, n, share)
        reached = np.minimum(*(shift.reach(bounds[:, i], p) for i, p in enumerate(needed)))
        settings = self._settings(n, alpha) | {"n0": n0, "tolerance": float(tolerance)}
        return Tolerances(
            center=torch.from_numpy(np.stack(centers)),
            tolerance=float(tolerance),
            radius=torch.from_numpy(reached),
            threat=self.noise.norm,
            confidence=statistical(alpha),
            joint=self.joint,
            evidence=[
                settings | {"id": key, "above": own[0].tolist(), "below": own[1].tolist()}
                for key, own in zip(keys, sides, strict=True)
            ],
        )

    def _settings(self, n: int, alpha: float) -> dict[str, Any]:
        settings = {"noise": to_json(self.noise), "percentile": self.percentile, "seed": self.seed}
        return settings | {"n": n, "alpha": alpha, "joint": self.joint}


def ranks(shift: Shift, percentile: float, radius: float, n: int, alpha: float) -> tuple[int, int]:
    """Ranks (0 to n + 1) of the samples that bound a percentile within a radius, each at level alpha."""
    below = upper_order(n, shift.most(1.0 - percentile, radius), alpha)
    return n + 1 - below, upper_order(n, shift.most(percentile, radius), alpha)
