"""Figures of one run of smoothing: what is certified at each radius, how surely, and for how many samples."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from certus.core import ArgumentError
from certus.core.results import statistical
from certus.core.validate import probability
from certus.evaluation.claim import alpha_of
from certus.evaluation.metrics import (
    Figure,
    average_certified_radius,
    curve,
    smoothed,
)
from certus.evaluation.spelling import Record, in_words, noise_of
from certus.evaluation.transcript import evidence_of
from certus.smoothing.noise import ElasticGaussian
from certus.smoothing.statistics import count_lower_bound, lower_bound, rate_lower_bound

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """Figures from n certificates of one run.

    radii [R]; certified [R]: share certified at each, with its 95% interval. alpha: chance of each single
    certificate to be wrong, the larger of what rows and transcripts state, 0 for proofs; independent:
    whether inputs were known not to share draws. true [R]: how many of these n inputs have what is
    claimed, at least; population [R]: the share of the population that has it, at least. Both account for
    alpha, and each holds with confidence `level` at its radius by itself. samples and median_samples are
    NaN where they were not kept.
    """

    n: int
    radii: tuple[float, ...]
    certified: tuple[Figure, ...]
    true: tuple[int, ...]
    population: tuple[float, ...]
    level: float
    alpha: float
    independent: bool
    acr: Figure
    abstained: float
    samples: float
    median_samples: float
    median_seconds: float

    @property
    def confidence(self) -> float:
        """Of each single certificate: below 1, however small alpha is, but for proofs."""
        return statistical(self.alpha) if self.alpha else 1.0


def certificates(rows: Sequence[Row]) -> list[Row]:
    """The rows that are certificates of a smoothed classifier: radii, not attacks at one eps."""
    return [row for row in rows if smoothed(row) and row["eps"] is None]


def figures(rows: Sequence[Row], radii: Sequence[float], level: float = 0.95) -> Smoothing:
    """Figures of one run of smoothing at these radii. An abstention counts among n, never as correct.

    The statement about a population takes the inputs as independent draws from it. Raises ArgumentError
    for no rows, rows that are no smoothing certificates, several runs, alphas or models.
    """
    if not rows or len(certificates(rows)) < len(rows):
        raise ArgumentError("figures of smoothing need certificates of a smoothed classifier")
    delta = 1.0 - probability(level, "level")
    records = [evidence_of(row) for row in rows]
    alpha = _one(rows, records)
    independent = all(record.get("shared") is False for record in records)
    found = curve(rows, radii)
    n = len({row["index"] for row in rows})
    hits = [round(share * n) for share in found.accuracy]
    taken = [_samples(record) for record in records]
    return Smoothing(
        n=n,
        radii=found.eps,
        certified=tuple(map(Figure, found.accuracy, found.n, found.low, found.high)),
        true=tuple(_true(k, n, alpha, delta, independent) for k in hits),
        population=tuple(_rate(k, n, alpha, delta, independent) for k in hits),
        level=level,
        alpha=alpha,
        independent=independent,
        acr=average_certified_radius(rows),
        abstained=sum(row["prediction"] < 0 for row in rows) / len(rows),
        samples=math.fsum(taken),
        median_samples=statistics.median(taken),
        median_seconds=statistics.median(row["seconds"] for row in rows),
    )


def _one(rows: Sequence[Row], records: Sequence[Record]) -> float:
    """The alpha of one run, whose noise, rule and seed are one as well, where the transcripts say them."""
    for name in ("noise", "rule", "seed"):
        told = sorted({in_words(record[name]) for record in records if name in record})
        if len(told) > 1 and not all(name == "noise" and _own_noise(r) for r in records):
            raise ArgumentError(f"one figure needs one {name}, got {told[0]:.60} and {told[1]:.60}")
    found = {alpha_of(row) for row in rows}
    if len(found) > 1:
        raise ArgumentError(f"one figure needs one alpha, got {sorted(found)}")
    return found.pop()


def _own_noise(record: Record) -> bool:
    """Whether each input has a noise of its own (`InputDependent`)."""
    return isinstance(noise_of(record), ElasticGaussian)


def _samples(record: Record) -> float:
    """Samples that one certificate took; those that chose the class included."""
    return float(record["n"]) + float(record.get("n0", 0)) if "n" in record else math.nan


def _true(hits: int, n: int, alpha: float, delta: float, independent: bool) -> int:
    return count_lower_bound(hits, n, alpha, delta, independent=independent) if alpha else hits


def _rate(hits: int, n: int, alpha: float, delta: float, independent: bool) -> float:
    if not alpha:
        return float(lower_bound(hits, n, delta))
    return rate_lower_bound(hits, n, alpha, delta, independent=independent)
