"""What the report says of smoothed classifiers: one curve and one line for each run or log."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from certus.evaluation import (
    Smoothing,
    audit,
    certificates,
    confidence_of,
    curve,
    ends_early,
    evidence_of,
    figures,
)
from certus.evaluation.metrics import canonical, certifies, group, reach, smoothed
from certus.evaluation.spelling import in_words
from certus.evaluation.transcript import PROVED, UNCHECKED, WRONG
from certus.report.data import Line
from certus.report.words import figure

Row = dict[str, Any]
Rows = Sequence[Row]

POINTS = 240
COLUMNS = 10  # radii of a table, at most: what fits beside a name on 800 pixels
STEPS = (0.25, 0.5, 1.0, 2.5, 5.0)
_RULE = re.compile(r"(\w+)\(n0=(\d+), n=(\d+)(?:, )?(.*)\)")
FINE_STEPS = (0.01, 0.025, 0.05, 0.1)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One run: its name, its curve, its figures at the radii of its group, and what to know about it.

    reaches says how far each input is certified.
    """

    name: str
    line: Line
    figures: Smoothing
    notes: tuple[str, ...] = ()
    reaches: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Group:
    """The runs on one data set in one norm, which share an axis and a table."""

    data: str
    norm: str
    radii: tuple[float, ...]
    entries: tuple[Entry, ...]

    @property
    def middle(self) -> int:
        """Number of the radius that the headline is about: 0.5 as in most tables, else a third of the way."""
        return self.radii.index(0.5) if 0.5 in self.radii else len(self.radii) // 3

    @property
    def best(self) -> Entry:
        """The run that certifies most there of the inputs that all who compete share.

        A run on less than half of the inputs does not compete; where the others share none, those on the
        same inputs as the first of the largest do.
        """
        largest = max(self.entries, key=lambda entry: len(entry.reaches))
        able = [e for e in self.entries if 2 * len(e.reaches) >= len(largest.reaches)]
        shared = set.intersection(*(set(entry.reaches) for entry in able))
        if not shared:
            able = [e for e in able if e.reaches.keys() == largest.reaches.keys()]
            shared = set(largest.reaches)
        radius = self.radii[self.middle]
        return max(able, key=lambda entry: sum(entry.reaches[i] >= radius for i in shared))


def groups(rows: Rows) -> tuple[Group, ...]:
    """The smoothing certificates among the rows (models and methods named apart), by data set and norm."""
    found = []
    for (data, norm), part in group(
        certificates(rows), lambda row: (str(row["data"]), str(row["norm"]))
    ).items():
        radii = _grid(max(reach(row) for row in part), norm)
        runs = group(part, _run)
        entries = tuple(
            _entry(name, own, radii)
            for name, own in zip(names(list(runs.values())), runs.values(), strict=True)
        )
        found.append(Group(data=data, norm=norm, radii=radii, entries=entries))
    return tuple(found)


def names(runs: Sequence[Rows]) -> list[str]:
    """A name for each run on one data set: its model, noise and rule where they differ, more if it must."""
    facts = [_facts(run[0]) for run in runs]
    found = [fact["model"] for fact in facts]
    for part in ("noise", "rule", "n", "n0", "alpha", "shared", "seed"):
        needed = part in ("noise", "rule") or len(set(found)) < len(found)
        if needed and len({fact[part] for fact in facts}) > 1:
            found = [f"{name}, {fact[part]}" for name, fact in zip(found, facts, strict=True)]
    seen: dict[str, int] = {}
    for place, name in enumerate(found):
        seen[name] = seen.get(name, 0) + 1
        found[place] = f"{name} #{seen[name]}" if seen[name] > 1 else name
    return found


@dataclass(frozen=True)
class Checked:
    """Rows after a look at their transcripts: `wrong` says which claims were withdrawn, and why."""

    rows: list[Row]
    proved: int
    unchecked: Mapping[str, int]
    wrong: tuple[str, ...]


def checked(rows: Rows) -> Checked:
    """Rows of which those whose counts prove less than they claim are made to certify nothing."""
    kept, proved, wrong = list(rows), 0, []
    unchecked: dict[str, int] = {}
    claims = {id(row) for row in rows if smoothed(row) and certifies(row)}
    for place, row in enumerate(rows):
        if id(row) not in claims:
            continue
        found = audit(row)
        proved += found.state == PROVED
        if found.state == UNCHECKED:
            unchecked[found.why] = unchecked.get(found.why, 0) + 1
        if found.state == WRONG:
            wrong.append(f"input {row['index']} of {row['model']}: {found.why}")
            kept[place] = row | {"reason": "transcript", "radius": 0.0}
            if row["eps"] is not None:
                kept[place]["verdict"] = "unknown"
    return Checked(kept, proved, unchecked, tuple(wrong))


def warnings(found: Checked, rows: Rows) -> list[str]:
    """What a reader must see: withdrawn claims, and logs whose radii contradict the alpha that is stated."""
    notes = []
    if found.wrong:
        shown = "; ".join(found.wrong[:5]) + ("; ..." if len(found.wrong) > 5 else "")
        notes.append(
            "Smoothing certificates that claim more than the counts in their transcripts prove: "
            f"{len(found.wrong)}. They count as not certified here; do not trust their file. {shown}"
        )
    for run in group(certificates(rows), lambda row: row["run"]).values():
        record = evidence_of(run[0])
        stated = record.get("from_alpha", record.get("alpha"))
        if "fits" in record and stated not in record["fits"]:
            notes.append(
                f"{record.get('log')}: alpha is stated as {stated:g}, but its radii do not fit it "
                f"with n = {record['n']} (they fit "
                f"{_listed(record['fits']) or 'no usual alpha'}), or its rule was no fixed n."
            )
    return notes


def _run(row: Row) -> tuple[str, ...]:
    """Model, method and run: each has its own noise, and its own alpha."""
    return str(row["model"]), str(row["method"]), str(row["run"])


def _entry(name: str, rows: Rows, radii: Sequence[float]) -> Entry:
    end = max((reach(row) for row in rows), default=0.0)
    points = [canonical(max(end, 0.0) * (i / POINTS)) for i in range(POINTS + 1)]
    beyond = canonical(max(end * (1 + 1e-6), 1e-6))  # nothing is certified from there on
    grid = sorted({*points, beyond})
    found = curve(rows, grid)
    line = Line(
        model=name,
        method=name,
        norm=str(rows[0]["norm"]),
        dense=True,
        confidence=min(map(confidence_of, rows)),
        eps=found.eps,
        accuracy=found.accuracy,
        low=found.low,
        high=found.high,
        n=found.n,
        inputs=frozenset(row["index"] for row in rows),
    )
    reaches = {row["index"]: reach(row) for row in rows}
    told = tuple(_notes(rows))
    return Entry(name=name, line=line, figures=figures(rows, radii), notes=told, reaches=reaches)


def _notes(rows: Rows) -> list[str]:
    record = evidence_of(rows[0])
    notes = []
    early = ends_early(rows)
    if early:
        notes.append(f"The log {early}.")
    fits = record.get("fits", [])
    if len(fits) == 1:
        notes.append(
            f"Radii in this log fit alpha = {fits[0]:g} (n = {record['n']}) and no other usual one."
        )
    elif fits:
        notes.append(f"Radii in this log fit alpha = {_listed(fits)} alike (n = {record['n']}).")
    if "from_alpha" in record:
        notes.append(f"Converted from alpha {record['from_alpha']:g} to {record['alpha']:g}.")
    if record.get("shared") is not False and min(row["confidence"] for row in rows) < 1:
        notes.append(
            "Its inputs shared their draws, or it is not known that they did not: the statement about "
            "all of them is weaker."
        )
    return notes


def _facts(row: Row) -> dict[str, str]:
    record = evidence_of(row)
    rule = _RULE.fullmatch(in_words(record.get("rule", "")))
    noise = re.sub(r"^Gaussian\((.*)\)$", r"\1", in_words(record.get("noise", "")))
    facts = {"model": str(row["model"]).replace(f" (data {row['data']})", ""), "noise": noise}
    name, n0, n, more = rule.groups() if rule else ("", "", "", "")
    facts |= {"rule": f"{name} {more}".strip() or "rule unknown", "n": f"n={n}", "n0": f"n0={n0}"}
    facts |= {"shared": "shared draws" if record.get("shared") else "own draws"}
    return facts | {key: f"{key}={record.get(key, '')}" for key in ("alpha", "seed")}


def _grid(end: float, norm: str) -> tuple[float, ...]:
    """Radii from 0 to the largest one certified in equal steps: a quarter as a rule."""
    whole = norm in ("l0", "l0-pixels", "patch")
    steps: tuple[float, ...] = (1.0, 2.0, 5.0) if whole else STEPS
    if not whole and end < 2 * STEPS[0]:
        steps = FINE_STEPS
    scale = 1.0
    while True:
        for step in steps:
            count = int(max(end, 0.0) / (scale * step) + 1e-9) + 1
            if count <= COLUMNS:
                return tuple(canonical(scale * step * i) for i in range(count))
        scale *= 10


def _listed(alphas: Sequence[float]) -> str:
    return ", ".join(figure(a) for a in alphas)
