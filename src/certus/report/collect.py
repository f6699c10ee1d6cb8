"""From the ledger's rows and runs to what a report shows; every figure comes from evaluation."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from certus.core import ArgumentError
from certus.evaluation import attack_curve, check, curve, settled, summary
from certus.evaluation.claim import distinct, weakest
from certus.evaluation.metrics import attacking, canonical, group, reach
from certus.evaluation.sandwich import Layer
from certus.report import smoothed
from certus.report.data import GalleryItem, Line, ReportData, Sandwich, number
from certus.report.names import name_methods, name_models

Rows = Sequence[dict[str, Any]]

POINTS = 60


def report_data(
    rows: Rows,
    runs: Rows = (),
    *,
    title: str = "Certified robustness",
    headline: Mapping[str, float] | None = None,
    gallery: Sequence[GalleryItem] = (),
    reproducibility: Mapping[str, str] | None = None,
) -> ReportData:
    """The record that `write_report` renders, from the columns that the ledger defines.

    headline maps a norm to the eps of the headline and the table; by default the eps at which most
    methods were run, the middle one of several. Raises ArgumentError without usable rows and
    ContradictionError where a proof and a replayed counterexample disagree. A smoothing certificate whose
    transcript proves less than it claims counts as not certified, and a note says so. A row that
    contradicts itself, its transcript or another of the same run is an ArgumentError that names it;
    confidences are the smaller of row and transcript.
    """
    if not rows:
        raise ArgumentError(
            "there are no evaluation rows; run `certus certify` or `certus compare` first"
        )
    known = {run["run"]: run for run in runs}
    rows = distinct([settled(row) for row in rows])
    audited = smoothed.checked(rows)
    models = name_models(weakest(audited.rows), known)
    checked = check(models, runs)
    named = name_methods(models, known)
    notes = smoothed.warnings(audited, rows)
    chosen = {**_headlines(named), **(headline or {})}
    lines: list[dict[str, Any]] = []
    for norm, part in group(named, lambda row: str(row["norm"])).items():
        lines += _table(summary(part, list(runs), grid=[chosen[norm]]), chosen[norm])
    return ReportData(
        title=title,
        rows=named,
        runs=list(runs),
        curves=_curves(named),
        summary=lines,
        headline=chosen,
        sandwich=tuple(_sandwich(layer) for layer in checked.layers),
        compared=checked.compared,
        gallery=tuple(gallery),
        reproducibility=dict(reproducibility or {}),
        notes=tuple(notes),
        smoothed=smoothed.groups(named),
        audited=audited,
    )


def _sandwich(layer: Layer) -> Sandwich:
    names = ("model", "norm", "eps", "n", "certified", "exact", "attacked", "decided")
    return Sandwich(**{name: getattr(layer, name) for name in names})


def _parts(rows: Rows) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    return group(rows, lambda row: (str(row["model"]), str(row["norm"]), str(row["method"])))


def _levels(rows: Rows) -> list[float]:
    return sorted({canonical(row["eps"]) for row in rows if row["eps"] is not None})


def _reach(rows: Rows) -> float:
    """The right end of an eps axis: the largest eps tried or radius certified."""
    return max([*_levels(rows), *(r for r in map(reach, rows) if math.isfinite(r)), 0.0])


def _headlines(rows: Rows) -> dict[str, float]:
    chosen = {}
    for norm, part in group(rows, lambda row: str(row["norm"])).items():
        votes: dict[float, int] = {}
        for rows_of_one in _parts(part).values():
            weight = 1 if attacking(rows_of_one[0]) else 1000
            for eps in _levels(rows_of_one):
                votes[eps] = votes.get(eps, 0) + weight
        winners = sorted(eps for eps, count in votes.items() if count == max(votes.values()))
        middle = winners[len(winners) // 2] if winners else float(f"{_reach(part) / 2:.2g}")
        chosen[norm] = middle
    return chosen


def _table(lines: Rows, eps: float) -> list[dict[str, Any]]:
    """One line per certificate: at the headline eps, or at the nearest eps that it was run at."""
    kept = []
    certificates = [line for line in lines if line["kind"] == "certificate"]
    for part in group(certificates, lambda line: (line["model"], line["method"])).values():
        kept.append(min(part, key=lambda line: abs(line["eps"] - eps)))
    return kept


def _curves(rows: Rows) -> list[Line]:
    lines = []
    for norm, all_rows in group(rows, lambda row: str(row["norm"])).items():
        end = _reach(all_rows) or 1.0
        dense = [canonical(end * (i / POINTS)) for i in range(POINTS + 1)]
        for (model, _, method), part in _parts(all_rows).items():
            levels = _levels(part)
            attack = attacking(part[0])
            found = attack_curve(part, levels) if attack else curve(part, levels or dense)
            lines.append(
                Line(
                    model=model,
                    method=method,
                    norm=norm,
                    kind="attack" if attack else "certified",
                    dense=not levels,
                    confidence=min(number(row["confidence"]) for row in part),
                    eps=found.eps,
                    accuracy=found.accuracy,
                    low=found.low,
                    high=found.high,
                    start=attack_curve(part, [0.0]).accuracy[0] if attack else math.nan,
                    n=found.n,
                    inputs=frozenset(row["index"] for row in part),
                )
            )
    return lines
