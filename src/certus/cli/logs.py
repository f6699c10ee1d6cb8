"""Certification logs on the command line: what they do not say of themselves, and their export."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from certus.cli.progress import say
from certus.core import ArgumentError, FileError
from certus.core.validate import probability
from certus.evaluation import Ledger, LogSettings, at_alpha, certificates, export, read
from certus.evaluation.metrics import group
from certus.evaluation.spelling import in_words, noise_of
from certus.evaluation.table import LEDGERS
from certus.evaluation.transcript import evidence_of
from certus.smoothing import Gaussian

Records = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Logs:
    """What certification logs (.tsv) do not say of themselves, and what is to be done with them.

    Logs that Certus wrote say noise, rule, samples and alpha; there n0 and n are not looked at.

    Args:
        sigma: noise of logs whose name does not say it (dataset__arch__noise_S__split__sigma_S.tsv).
        n0: samples that chose the class.
        n: samples that bounded its probability.
        log_alpha: chance to be wrong that the logs were made with (default: what their radii fit).
        alpha: convert the logs to this alpha.
        logs: folder to write every smoothing run with Gaussian noise to, as a log; made where it is missing.
    """

    sigma: float | None = None
    n0: int = 100
    n: int = 100_000
    log_alpha: float | None = None
    alpha: float | None = None
    logs: Path | None = None

    def load(self, paths: Sequence[Path]) -> tuple[Records, Records]:
        """Rows of all tables, logs converted where asked for, and the runs that ledgers know of."""
        settings = LogSettings(sigma=self.sigma, n0=self.n0, n=self.n, alpha=self.log_alpha)
        if self.alpha is not None:
            probability(self.alpha, "alpha")
        if len({path.resolve() for path in paths}) < len(paths):
            raise ArgumentError("a table is named twice")
        rows: Records = []
        runs: Records = []
        for path in paths:
            rows += self._log(path, settings) if path.suffix.lower() == ".tsv" else read(path)
            if path.suffix.lower() in LEDGERS:
                with Ledger(path, create=False) as kept:
                    runs += kept.runs()
        return rows, runs

    def export(self, rows: Records, runs: Records) -> list[Path]:
        """Write the smoothing runs under Gaussian noise, named by data, model, training noise and sigma."""
        if self.logs is None:
            return []
        known = {run["run"]: run for run in runs}
        parts = group(certificates(rows), lambda row: row["run"])
        fitting = [own for own in parts.values() if _fits(own[0])]
        if not fitting:
            raise ArgumentError("--logs: there is no smoothing run with Gaussian noise to write")
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"--logs {self.logs}: cannot be created ({error.strerror})") from error
        names = _names(fitting, known)
        return [export(own, self.logs / name) for name, own in zip(names, fitting, strict=True)]

    def _log(self, path: Path, settings: LogSettings) -> Records:
        """Rows of one log, at another alpha where that is asked for."""
        found = read(path, settings)
        if not found:
            raise FileError(f"{path}: the log holds no rows")
        if self.alpha is None:
            return found
        try:
            return at_alpha(found, self.alpha)
        except ArgumentError as error:
            raise ArgumentError(f"--alpha: {path}: {error}") from error


def _fits(row: dict[str, Any]) -> bool:
    """Whether a log can hold the run of this row."""
    return _gaussian(row) is not None and row["norm"] == "l2"


def _gaussian(row: dict[str, Any]) -> float | None:
    """Sigma of the Gaussian noise that a row is about; None where it is about none."""
    noise = noise_of(evidence_of(row))
    return noise.sigma if isinstance(noise, Gaussian) else None


def _names(parts: Sequence[Records], known: dict[str, dict[str, Any]]) -> list[str]:
    """A file name for each run. Those that would share one are told apart by rule, samples, alpha or seed,
    else by a number; what each then is, is said on standard error.
    """
    from certus.report.smoothed import names

    runs = [known.get(own[0]["run"], {}) for own in parts]
    alike: dict[str, list[int]] = {}
    for place, (own, run) in enumerate(zip(parts, runs, strict=True)):
        alike.setdefault(_name(own[0], run, ""), []).append(place)
    found: dict[int, str] = {}
    for places in alike.values():
        for place, told in zip(places, names([parts[i] for i in places]), strict=True):
            row, number = parts[place][0], 1
            apart = told.removeprefix(row["model"]).partition(" #")[0] if len(places) > 1 else ""
            stem = extra = re.sub(r"[ ,]+", "-", apart)
            while (name := _name(row, runs[place], extra)) in found.values():
                number += 1
                extra = f"{stem}-{number}"
            found[place] = name
            if len(places) > 1 or number > 1:
                say(f"{name}: {_origin(row, runs[place])}")
    return [found[place] for place in range(len(parts))]


def _origin(row: dict[str, Any], run: dict[str, Any]) -> str:
    """Where a run is from, as far as it is known: settings, weights, code and time."""
    record, versions = evidence_of(row), _said(run, "versions")
    facts = {
        "run": row["run"],
        "rule": in_words(record.get("rule", "")),
        "alpha": record.get("alpha"),
    }
    facts |= {"weights": run.get("model_hash", "")[:12], "started": run.get("started")}
    facts |= {name: versions.get(name) for name in ("certus", "code")}
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value)


def _name(row: dict[str, Any], run: dict[str, Any], extra: str) -> str:
    """The name that a log of this run has in Cohen's convention."""
    recipe = _said(run, "card").get("recipe")
    recipe = recipe if isinstance(recipe, dict) else {}
    kind, _, sigma = str(recipe.get("noise", "")).partition(":")
    trained = sigma if kind == "gaussian" else recipe.get("sigma", 0)
    parts = [row["data"], f"{row['model']}{extra}", f"noise_{_plain(trained)}", "test"]
    name = "__".join([*parts, f"sigma_{_plain(_gaussian(row) or 0)}"])
    return "".join(c if c.isprintable() and c not in "/ " else "-" for c in name) + ".tsv"


def _said(run: dict[str, Any], column: str) -> dict[str, Any]:
    """A column of JSON text; FileError where it is none."""
    try:
        found = json.loads(run.get(column) or "{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise FileError(f"the {column} of run {run['run']} are damaged")
    return found


def _plain(value: Any) -> str:
    """All digits, never an exponent; 0 for what a damaged card has in place of a number."""
    try:
        return np.format_float_positional(float(value), trim="-")
    except (TypeError, ValueError, OverflowError):
        return "0"
