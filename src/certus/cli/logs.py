"""Certification logs on the command line: what they do not say of themselves, and their export."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from certus.core import ArgumentError, FileError
from certus.core.validate import probability
from certus.evaluation import Ledger, LogSettings, at_alpha, certificates, export, read
from certus.evaluation.metrics import group
from certus.evaluation.spelling import noise_of
from certus.evaluation.transcript import evidence_of
from certus.smoothing import Gaussian

Records = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Logs:
    """What certification logs (.tsv) do not say of themselves, and what is to be done with them.

    Args:
        sigma: noise of logs whose name does not say it (dataset__arch__noise_S__split__sigma_S.tsv).
        n0: samples that chose the class.
        n: samples that bounded its probability.
        log_alpha: chance to be wrong that the logs were made with (default: what their radii fit).
        alpha: convert the logs to this alpha.
        logs: folder to write every smoothing run with Gaussian noise to, as a log.
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
            found = read(path, settings)
            if path.suffix.lower() == ".tsv" and self.alpha is not None:
                found = at_alpha(found, self.alpha)
            rows += found
            if path.suffix.lower() in (".sqlite", ".db"):
                with Ledger(path, create=False) as kept:
                    runs += kept.runs()
        return rows, runs

    def export(self, rows: Records, runs: Records) -> list[Path]:
        """Write the smoothing runs under Gaussian noise, named by data, model, training noise and sigma."""
        if self.logs is None:
            return []
        if not self.logs.is_dir():
            raise FileError(f"--logs {self.logs}: there is no such folder; create it first")
        known = {run["run"]: run for run in runs}
        written: list[Path] = []
        for key, own in group(certificates(rows), lambda row: row["run"]).items():
            noise = noise_of(evidence_of(own[0]))
            if not isinstance(noise, Gaussian) or own[0]["norm"] != "l2":
                continue
            path = self.logs / _name(own[0], noise.sigma, known.get(key, {}), "")
            if path in written:
                path = self.logs / _name(own[0], noise.sigma, known.get(key, {}), f"-{key}")
            written.append(export(own, path))
        if not written:
            raise ArgumentError("--logs: there is no smoothing run with Gaussian noise to write")
        return written


def _name(row: dict[str, Any], sigma: float, run: dict[str, Any], extra: str) -> str:
    """The name that a log of this run has in Cohen's convention."""
    recipe = json.loads(run.get("card") or "{}").get("recipe")
    trained = recipe.get("sigma", 0) if isinstance(recipe, dict) else 0
    parts = [row["data"], f"{row['model']}{extra}", f"noise_{_plain(trained)}", "test"]
    name = "__".join([*parts, f"sigma_{_plain(sigma)}"])
    return name.replace("/", "-").replace(" ", "-") + ".tsv"


def _plain(value: float) -> str:
    """All digits, never an exponent."""
    return np.format_float_positional(float(value), trim="-")
