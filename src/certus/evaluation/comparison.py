"""The table of a comparison: one line for each model, method and eps."""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from certus.evaluation.claim import weakest
from certus.evaluation.metrics import (
    Figure,
    Row,
    attack_curve,
    attacking,
    average_certified_radius,
    canonical,
    clean_accuracy,
    clip_of,
    curve,
    gap,
    group,
)

Runs = Sequence[dict[str, Any]]


def summary(rows: Sequence[Row], runs: Runs = (), grid: Iterable[float] = ()) -> list[Row]:
    """One dict for each model x data x method x norm x eps, in order of first appearance.

    Keys: model, data, method, kind ("certificate" or "attack"), subject, norm, eps, clean, certified, low,
    high, attack, attack_n, gap, gap_n, acr, abstained, median_seconds, train_seconds, confidence, n,
    inputs, settings. All figures but four are about the n inputs whose positions `inputs` lists: clean,
    certified and abstained are fractions of them, acr is their mean; low and high are the 95% interval of
    certified, or of attack where kind is "attack"; clean of smoothing is the accuracy of the smoothed
    classifier, where an abstention is a mistake. A value that does not apply is None. `attack` is
    the accuracy under all attacks on the same classifier, of those attack_n among them that were
    attacked at eps or less, and `gap` what it exceeds the certified accuracy of the same gap_n inputs
    by; None of 0 where there are none. confidence is the smallest of the rows and their transcripts. A
    method that gives a radius by itself has a line for every eps of `grid`, by default for those that
    other methods were run at on the same model, data and norm, or 0 where there are none.
    """
    known, rows = {run["run"]: run for run in runs}, weakest(rows)
    groups = group(rows, lambda row: _key(row, known))
    attacks = group(
        (row for row in rows if attacking(row)),
        lambda row: _classifier(row, known),
    )
    levels = group(
        (row for row in rows if row["eps"] is not None),
        lambda row: (row["model"], row["data"], row["norm"]),
    )
    lines: list[Row] = []
    for part in groups.values():
        first = part[0]
        found = levels.get((first["model"], first["data"], first["norm"]), [])
        for eps in _levels(part, found, [canonical(e) for e in grid]):
            lines.append(_line(part, eps, attacks.get(_classifier(first, known), []), known))
    return lines


def _line(part: list[Row], eps: float, attacks: list[Row], known: dict[str, Any]) -> Row:
    run = known.get(part[0]["run"], {})
    here = [r for r in part if r["eps"] is None or canonical(r["eps"]) == eps]
    figure = clean_accuracy(here)
    asked = {row["index"] for row in here}  # the sandwich is about the same inputs on both sides
    attack = _attacked([row for row in attacks if row["index"] in asked], eps)
    certified: Figure | None = None
    difference = Figure(math.nan, 0)
    against = attacking(part[0])
    if against:
        attack = own = _point(attack_curve(part, [eps]))
    else:
        own = certified = _point(curve(part, [eps]))
        difference = gap([row for row in part if row["index"] in asked], attacks, eps)
    return {
        **{key: part[0][key] for key in ("model", "data", "method", "norm", "subject")},
        "kind": "attack" if against else "certificate",
        "eps": eps,
        "clean": figure.value,
        "certified": certified.value if certified else None,
        "low": own.low,
        "high": own.high,
        "attack": attack.value if attack else None,
        "attack_n": attack.n if attack else 0,
        "gap": difference.value if difference.n else None,
        "gap_n": difference.n,
        "acr": None
        if against
        else average_certified_radius([row for row in part if row["index"] in asked]).value,
        "abstained": sum(row["prediction"] < 0 for row in here) / len(here),
        "median_seconds": statistics.median(row["seconds"] for row in here),
        "train_seconds": _train_seconds(run),
        "confidence": min(row["confidence"] for row in here),
        "n": figure.n,
        "inputs": tuple(sorted(asked)),
        "settings": run.get("settings", ""),
    }


def _point(found: Any) -> Figure:
    return Figure(found.accuracy[0], found.n[0], found.low[0], found.high[0])


def _attacked(attacks: list[Row], eps: float) -> Figure | None:
    """Accuracy under attack at eps; None where nothing was attacked at eps or less."""
    if not any(canonical(row["eps"]) <= eps for row in attacks):
        return None
    return _point(attack_curve(attacks, [eps]))


def _levels(part: list[Row], found: list[Row], grid: list[float]) -> list[float]:
    own = sorted({canonical(row["eps"]) for row in part if row["eps"] is not None})
    if own:
        return own
    return grid or sorted({canonical(row["eps"]) for row in found}) or [0.0]


def _classifier(row: Row, known: dict[str, Any]) -> tuple[Any, ...]:
    run = known.get(row["run"], {})
    hashes = (run.get(key) for key in ("model_hash", "data_hash"))
    return (row["model"], row["data"], row["norm"], row["subject"], str(clip_of(row)), *hashes)


def _key(row: Row, known: dict[str, Any]) -> tuple[Any, ...]:
    run = known.get(row["run"], {})
    # certificates of several runs spend an alpha each; an attack's runs differ in eps alone
    alone = row["run"] if row["confidence"] < 1 and row["eps"] is None else None
    return (*_classifier(row, known), row["method"], run.get("settings"), alone)


def _train_seconds(run: dict[str, Any]) -> float | None:
    """The training time that the checkpoint's card states."""
    card = run.get("card") or "{}"
    card = json.loads(card) if isinstance(card, str) else card
    for key in ("train_seconds", "training_seconds", "seconds"):
        if isinstance(card, dict) and isinstance(card.get(key), int | float):
            return float(card[key])
    return None
