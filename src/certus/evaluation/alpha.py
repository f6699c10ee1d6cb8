"""Alpha after the fact: which one the radii of a log fit, and the same counts at another one."""

import json
from collections.abc import Sequence
from operator import index
from typing import Any

import numpy as np

from certus.core import ArgumentError
from certus.core.results import statistical
from certus.core.validate import count, probability
from certus.evaluation.claim import alpha_of
from certus.evaluation.metrics import group
from certus.evaluation.spelling import in_words, noise_of, rule_of
from certus.evaluation.transcript import evidence_of, tally
from certus.smoothing.noise import Noise
from certus.smoothing.rules import Fixed
from certus.smoothing.statistics import lower_bound

Row = dict[str, Any]

USUAL = (0.05, 0.025, 0.01, 0.005, 0.001, 0.0005, 0.0001)
"""Alphas that logs are made with, and their halves (two-sided intervals)."""

_DIGITS = 3  # significant digits of a log, at least
_EQUAL = 1e-9  # relative difference of the same radius from another implementation


def implied_counts(radii: np.ndarray, noise: Noise, n: int, alpha: float) -> np.ndarray:
    """The counts k whose Clopper-Pearson bound of k of n at alpha has the radii nearest to these, int64.

    radii [m] > 0 in the norm of the noise. Radii of few digits fit several counts; then it is one in the
    middle. Raises ArgumentError as `lower_bound` does.
    """
    target = np.asarray(radii, dtype=np.float64)
    low, high = np.zeros(target.shape, dtype=np.int64), np.full(target.shape, count(n, "n"))
    while (low + 1 < high).any():  # radius(low) <= target, where it is not 0
        middle = (low + high) // 2
        under = _radius(middle, noise, n, alpha) <= target
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    ends = np.stack([low, high])
    nearest = np.abs(_radius(ends, noise, n, alpha) - target).argmin(0)
    return np.where(nearest == 1, high, low)


def fitting(
    radii: np.ndarray, noise: Noise, n: int, alphas: Sequence[float] = USUAL
) -> list[float]:
    """Those alphas under which all radii are, to the digits given, radii of whole counts of n.

    Large radii tell alphas apart, since few counts lie there; small ones fit any. Radii are taken as
    printed with as many significant digits as the longest of them has, and at least three.
    """
    target = np.unique(np.asarray(radii, dtype=np.float64))
    target = target[target > 0]
    allowed = _rounding(target)
    kept = []
    for alpha in alphas:
        counts = implied_counts(target, noise, n, alpha)
        if (np.abs(_radius(counts, noise, n, alpha) - target) <= allowed).all():
            kept.append(alpha)
    return kept


def at_alpha(rows: Sequence[Row], alpha: float) -> list[Row]:
    """The same samples as certificates at another alpha: radii, predictions and abstentions found anew.

    For rows of the rule `Fixed`, in the norm of their noise. Counts come from the rows' evidence, or, for
    logs that hold none, from their radii (`implied_counts`, to the digits that were printed) at the larger
    of the alphas that row and evidence state; where such a log abstains its count is not known, and it
    stays an abstention. What makes one alpha the claim must not be these samples. Raises ArgumentError
    for other rows, and for counts that are damaged.
    """
    probability(alpha, "alpha")
    records = [_whole(evidence_of(row)) | {"alpha": alpha_of(row)} for row in rows]
    found: list[Row] = [{}] * len(rows)
    for same in group(({"at": i, **r} for i, r in enumerate(records)), _setting).values():
        for record, radius in zip(same, _radii(same, alpha), strict=True):
            row = rows[record["at"]]
            if row["norm"] != getattr(noise_of(record), "norm", None):
                raise ArgumentError(f"the rows were converted to {row['norm']}, which is final")
            new = {k: v for k, v in record.items() if k not in ("at", "probability", "runner_up")}
            new |= {"alpha": alpha, "from_alpha": record["alpha"]}
            base = row | {
                "confidence": statistical(alpha),
                "run": f"{row['run']} at alpha {alpha:g}",
            }
            found[record["at"]] = sampled(base, new, int(record["class"]), float(radius))
    return found


def sampled(row: Row, record: Row, chosen: int, radius: float) -> Row:
    """A row that claims what the chosen class (-1: none) with this radius gives for its label.

    A record that names the class keeps it, also where the row abstains.
    """
    settled = chosen >= 0 and radius > 0
    hit = settled and chosen == row["label"]
    return row | {
        "prediction": chosen if settled else -1,
        "verdict": "",
        "reason": "" if hit else "wrong_class" if settled else "abstained",
        "radius": radius if hit else 0.0,
        "evidence": json.dumps({"class": chosen} | record | {"radius": radius if settled else 0.0}),
    }


def _whole(record: Row) -> Row:
    """The record, if it says all that a conversion needs; ArgumentError otherwise."""
    missing = [name for name in ("noise", "rule", "n", "alpha", "class") if name not in record]
    if missing or not ("counts" in record or "radius" in record):
        raise ArgumentError(
            f"only rows with a transcript can be converted to another alpha; one lacks {missing or 'counts'}"
        )
    return record


def _setting(record: Row) -> tuple[Any, ...]:
    named = tuple(repr(record.get(key)) for key in ("noise", "rule", "n", "alpha"))
    return (*named, "counts" in record)


def _radii(same: Sequence[Row], alpha: float) -> np.ndarray:
    """Radii at alpha of transcripts of one setting; 0 where the count is not known."""
    noise, rule = noise_of(same[0]), rule_of(same[0])
    if type(rule) is not Fixed or not isinstance(noise, Noise):
        raise ArgumentError(
            "only rows of smoothing with the rule Fixed and a known noise can be converted to another alpha"
            f", not {in_words(same[0].get('rule', 'an unknown rule'))} with "
            f"{in_words(same[0].get('noise', 'unknown noise'))}"
        )
    if same[0]["n"] != rule.n:
        raise ArgumentError(
            f"a transcript states {str(same[0]['n'])[:40]} samples, its rule takes {rule.n}"
        )
    if "counts" in same[0]:
        hits = np.array([_hits(record) for record in same])
    else:
        printed = np.array([record["radius"] for record in same])
        known = implied_counts(np.where(printed > 0, printed, 1.0), noise, rule.n, same[0]["alpha"])
        hits = np.where(printed > 0, known, 0)
    return _radius(hits, noise, rule.n, alpha)


def _hits(record: Row) -> int:
    """How many samples the class of a transcript got, of counts that add up."""
    try:
        counts, chosen = tally(record["counts"], record["n"]), index(record["class"])
        if not 0 <= chosen < len(counts):
            raise ValueError("its class is not among the counted ones")
    except (ValueError, TypeError, OverflowError) as error:
        raise ArgumentError(f"the counts of some transcripts are damaged: {error}") from None
    return int(counts[chosen])


def _radius(hits: np.ndarray, noise: Noise, n: int, alpha: float) -> np.ndarray:
    return noise.radius(lower_bound(hits, n, alpha))


def _rounding(radii: np.ndarray) -> np.ndarray:
    """How far printed radii may lie from the true ones."""
    digits = max((len(_significant(r)) for r in radii.tolist()), default=_DIGITS)
    place = np.floor(np.log10(radii)) + 1 - max(digits, _DIGITS)
    return np.maximum(0.5 * 10.0**place * (1 + _EQUAL), _EQUAL * radii)


def _significant(value: float) -> str:
    return repr(value).partition("e")[0].replace(".", "").strip("0")
