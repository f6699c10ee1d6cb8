"""Figures from evaluation rows: pure functions, and every figure carries its n.

A row is a plain dict with the columns of `certus.evaluation.ledger.COLUMNS`; what it claims, and of which
function, its columns kind, subject and threat say, never its method's name. An input is certified
at eps where the prediction is the label and the certificate reaches eps: its radius where the row has
no threat of its own, else the eps that its verdict "verified" is about; an abstention is never
correct. Certificates of one deterministic method may be combined, because balls are nested; a
statistical method spends its alpha once for each run, so its runs are never combined. The table of a
whole comparison is `certus.evaluation.summary` (comparison.py).
"""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from certus.core import ArgumentError
from certus.core.claim import ATTACK, NETWORK
from certus.core.kinds import parsed
from certus.smoothing.statistics import accuracy_interval

Row = dict[str, Any]

UNTOLD = "untold"


@dataclass(frozen=True)
class Figure:
    """A number from n inputs; low and high are a 95% interval, NaN where none is given."""

    value: float
    n: int
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Curve:
    """Accuracy as a function of eps, with 95% Clopper-Pearson intervals and n at every point."""

    eps: tuple[float, ...]
    accuracy: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    n: tuple[int, ...]


def fraction(k: int, n: int) -> Figure:
    """k of n as a Figure; NaN with the interval (0, 1) where n is 0.

    The Clopper-Pearson interval is about the population that the inputs were drawn from.
    """
    return Figure(k / n, n, *accuracy_interval(k, n)) if n else Figure(math.nan, 0, 0.0, 1.0)


def canonical(eps: float) -> float:
    """eps to 12 significant digits, so that 3 * 0.1 and 0.3 are the same level."""
    return float(f"{eps:.12g}")


def correct(row: Row) -> bool:
    """Whether the prediction on the clean input is the label (an abstention, -1, is not)."""
    return row["prediction"] == row["label"] and row["prediction"] >= 0


def certifies(row: Mapping[str, Any]) -> bool:
    """Whether the row claims a certificate: that it is verified or, without a threat of its own, a radius.

    A NaN radius is a claim, too, of which it is not known how far it reaches.
    """
    if row["eps"] is None:  # rows of old hold the verdict at eps 0
        return row["verdict"] in ("", "verified") and not row["radius"] <= 0
    return bool(row["verdict"] == "verified")


def reach(row: Row) -> float:
    """The largest eps that this row certifies; -1 where it certifies nothing.

    A row of a method that decides one threat reaches at least that threat's eps; a NaN radius adds
    nothing to it.
    """
    if not certifies(row) or not correct(row):
        return -1.0
    known = [-1.0] if row["eps"] is None else [canonical(row["eps"])]
    return max([*known, row["radius"]] if not math.isnan(row["radius"]) else known)


def smoothed(row: Mapping[str, Any]) -> bool:
    """Whether the row is about a function made of the network, such as the smoothed classifier."""
    return bool(row["subject"] != NETWORK)


def attacking(row: Mapping[str, Any]) -> bool:
    """Whether the row is an attack's, which certifies nothing."""
    return bool(row["kind"] == ATTACK)


def clip_of(row: Mapping[str, Any]) -> Any:
    """The range that the row's threat is cut to: [low, high], None, or UNTOLD where it is not known."""
    return parsed(row["threat"]).get("clip", UNTOLD)


def curve(rows: Sequence[Row], grid: Iterable[float]) -> Curve:
    """Certified accuracy of one method on one model, data set and norm at every eps of the grid.

    At an eps between two evaluated ones the inputs of the larger count; beyond the largest, nothing
    is certified. Raises ArgumentError for rows of several methods, models, data sets or norms, and
    for several runs of a statistical method: its alpha holds for each run by itself.
    """
    _same(rows, "model", "data", "norm", "method", "subject")
    _one_alpha(rows)
    best = _best(rows)
    reaches = {level: sorted(best[i] for i in asked) for level, asked in _asked(rows).items()}
    points = [canonical(e) for e in grid]
    figures = []
    for eps in points:
        found = reaches[_level(reaches, eps, above=True)]
        figures.append(fraction(len(found) - bisect_left(found, eps), len(found)))
    return _curve(points, figures)


def attack_curve(rows: Sequence[Row], grid: Iterable[float]) -> Curve:
    """Accuracy under attack: correct on the clean input and no success at any eps' <= eps.

    Several attacks on one model may be given together. It is an upper bound of the true robust
    accuracy. At an eps between two attacked ones the inputs of the smaller count. Raises
    ArgumentError for rows of several models, data sets or norms, or that mix a smoothed classifier
    with its base or with another.
    """
    _same(rows, "model", "data", "norm", "subject")
    broken: dict[int, float] = defaultdict(lambda: math.inf)
    for row in rows:
        broken[row["index"]] = min(broken[row["index"]], _falls(row))
    asked_at = _asked(rows)
    points = [canonical(e) for e in grid]
    figures = []
    for eps in points:
        asked = asked_at[_level(asked_at, eps, above=False)]
        figures.append(fraction(sum(broken[i] > eps for i in asked), len(asked)))
    return _curve(points, figures)


def clean_accuracy(rows: Sequence[Row]) -> Figure:
    """Fraction of inputs whose prediction is the label, with its 95% interval.

    Of smoothing rows it is the accuracy of the smoothed classifier: an abstention is a mistake, so it
    depends on noise, rule, n and alpha, and says nothing of the network on clean inputs.
    """
    _same(rows, "model", "data")
    found: dict[int, bool] = defaultdict(lambda: True)
    for row in rows:
        found[row["index"]] &= correct(row)
    return fraction(sum(found.values()), len(found))


def average_certified_radius(rows: Sequence[Row]) -> Figure:
    """Mean over all inputs of the certified radius, 0 where nothing is certified (Zhai et al.
    2020).

    For a method that decides one eps at a time it is the mean of the largest eps certified: a lower
    bound. Raises what `curve` raises.
    """
    _same(rows, "model", "data", "norm", "method", "subject")
    _one_alpha(rows)
    best = _best(rows)
    total = math.fsum(max(value, 0.0) for value in best.values())
    return Figure(total / len(best) if best else math.nan, len(best))


def asked_at(rows: Sequence[Row], eps: float, *, attack: bool = False) -> set[int]:
    """The inputs that a figure of these rows at eps is about.

    Of certificates those evaluated at the smallest level >= eps, of attacks at the largest level <= eps
    (at the last level, or the first, where there is none), as in `curve` and `attack_curve`.
    """
    levels = _asked(rows)
    return levels[_level(levels, canonical(eps), above=not attack)] if rows else set()


def gap(certificates: Sequence[Row], attacks: Sequence[Row], eps: float) -> Figure:
    """Accuracy under attack minus certified accuracy at eps, over the inputs that both were run on.

    Rows of one certificate and of attacks on the same classifier. NaN of 0 inputs where they share none,
    or where nothing was attacked at eps or less. Raises what `curve` and `attack_curve` raise.
    """
    eps = canonical(eps)
    if not any(canonical(row["eps"]) <= eps for row in attacks if row["eps"] is not None):
        return Figure(math.nan, 0)
    shared = asked_at(certificates, eps) & asked_at(attacks, eps, attack=True)
    if not shared:
        return Figure(math.nan, 0)
    proven = curve([row for row in certificates if row["index"] in shared], [eps])
    left = attack_curve([row for row in attacks if row["index"] in shared], [eps])
    return Figure(left.accuracy[0] - proven.accuracy[0], len(shared))


def group(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    """Rows by key, in order of first appearance."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def _falls(row: Row) -> float:
    """The smallest eps at which this row shows the label lost; inf where it shows nothing."""
    if not correct(row):
        return 0.0
    if row["verdict"] != "falsified" or row["eps"] is None:
        return math.inf
    return canonical(row["eps"])


def _best(rows: Sequence[Row]) -> dict[int, float]:
    best: dict[int, float] = {}
    for row in rows:
        best[row["index"]] = max(best.get(row["index"], -1.0), reach(row))
    return best


def _asked(rows: Sequence[Row]) -> dict[float | None, set[int]]:
    """The inputs evaluated at each level, with those without level; those alone where there is none."""
    without = {row["index"] for row in rows if row["eps"] is None}
    found: dict[float | None, set[int]] = {}
    for row in rows:
        if row["eps"] is not None:
            found.setdefault(canonical(row["eps"]), set(without)).add(row["index"])
    return found or {None: without}


def _level(levels: Iterable[float | None], eps: float, *, above: bool) -> float | None:
    """The level nearest to eps from above (below), the last one (first) where there is none."""
    known = sorted(level for level in levels if level is not None)
    if above:
        return next((e for e in known if e >= eps), known[-1] if known else None)
    return next((e for e in reversed(known) if e <= eps), known[0] if known else None)


def _curve(points: Sequence[float], figures: Sequence[Figure]) -> Curve:
    return Curve(
        tuple(points),
        tuple(f.value for f in figures),
        tuple(f.low for f in figures),
        tuple(f.high for f in figures),
        tuple(f.n for f in figures),
    )


def _same(rows: Sequence[Row], *columns: str) -> None:
    for column in columns:
        values = sorted({str(row[column]) for row in rows})
        if len(values) > 1:
            raise ArgumentError(
                f"one figure needs rows of one {column}, got {', '.join(v[:80] for v in values)}"
            )


def _one_alpha(rows: Sequence[Row]) -> None:
    runs = {row["run"] for row in rows if row["confidence"] < 1}
    if len(runs) > 1:
        raise ArgumentError(
            f"{len(runs)} runs of {rows[0]['method']} cannot be combined, each has its own alpha; "
            "select the rows of one run"
        )
