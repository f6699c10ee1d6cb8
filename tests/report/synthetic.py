"""Synthetic ledgers and gallery items with known figures, for the tests of the report."""

import json
import math
from typing import Any

import numpy as np

from certus.evaluation.legacy import completed
from certus.report import GalleryItem

LEVELS = (0.05, 0.1, 0.15)


def _row(run: str, index: int, **columns: Any) -> dict[str, Any]:
    base = {"run": run, "model": "standard", "data": "digits", "index": index, "label": index % 10}
    base |= {"prediction": index % 10, "verdict": "unknown", "reason": "loose", "radius": math.nan}
    base |= {"margin": math.nan, "method": "ibp", "norm": "linf", "eps": None}
    return base | {"confidence": 1.0, "seconds": 0.002} | columns


def _decide(model: str, method: str, strength: np.ndarray, n: int) -> list[dict[str, Any]]:
    """Rows of a method that proves input i at eps where eps <= strength[i]."""
    rows = []
    for eps in LEVELS:
        for i in range(n):
            proven = strength[i] >= eps
            rows.append(
                _row(f"{model}-{method}-{eps}", i, model=model, method=method, eps=eps)
                | ({"verdict": "verified", "reason": "", "radius": eps} if proven else {})
            )
    return rows


def _attack(model: str, strength: np.ndarray, n: int) -> list[dict[str, Any]]:
    rows = []
    for eps in LEVELS:
        for i in range(n):
            won = strength[i] < eps
            reason = "attacked" if won else "survived"
            row = _row(f"{model}-pgd-{eps}", i, model=model, method="pgd", eps=eps, reason=reason)
            rows.append(row | {"verdict": "falsified" if won else "unknown"})
    return rows


def _smooth(model: str, n: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    rows = []
    for i in range(n):
        radius = float(rng.uniform(-0.1, 0.8))
        row = _row(f"{model}-smoothing", i, model=model, method="smoothing", norm="l2")
        row |= {"confidence": 0.999, "seconds": 0.8, "verdict": ""}
        if radius <= 0:
            rows.append(row | {"prediction": -1, "reason": "abstained", "radius": 0.0})
        else:
            rows.append(row | {"reason": "", "radius": radius})
    return rows


def ledger(names: tuple[str, ...] = ("standard", "ibp-trained"), n: int = 40) -> tuple[list, list]:
    """Rows and runs: ibp <= crown <= milp <= pgd on every input, smoothing and lipschitz in l2."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for k, model in enumerate(names):
        exact = rng.uniform(0.02, 0.12 + 0.1 * k, n)
        rows += _decide(model, "ibp", exact * min(0.3 + 0.3 * k, 0.9), n)
        rows += _decide(model, "crown", exact * 0.8, n)
        milp = _decide(model, "milp", exact, n)
        for row in milp:
            if row["verdict"] != "verified":
                row |= {"verdict": "falsified", "reason": "attacked", "seconds": 1.5}
        rows += milp + _attack(model, exact * 1.1, n) + _smooth(model, n)
        for i in range(n):
            row = _row(f"{model}-lipschitz", i, model=model, method="lipschitz", norm="l2")
            rows.append(row | {"verdict": "", "reason": "", "radius": float(exact[i]) * 3})
    rows = completed(rows)
    runs = []
    for run in dict.fromkeys(row["run"] for row in rows):
        row = next(r for r in rows if r["run"] == run)
        settings = {"kind": "PGD", "steps": 40, "seed": 7} if row["method"] == "pgd" else {}
        card = {
            "recipe": "crown-ibp",
            "train_seconds": 31.5,
            "parameters": 12874,
            "history": [1, 2],
        }
        told = ("run", "model", "data", "method", "norm", "eps", "kind", "subject", "threat")
        entry = {key: row[key] for key in told}
        entry |= {
            "settings": json.dumps(settings),
            "seed": 7,
            "split_size": 360,
            "model_hash": f"hash{row['model']}",
        }
        entry |= {"data_hash": "d1", "card": json.dumps(card)}
        entry |= {"versions": json.dumps({"certus": "0.1.0", "torch": "2.13"})}
        runs.append(entry | {"started": "2030-01-01T00:00:00Z"})
    return rows, runs


def gallery() -> list[GalleryItem]:
    """A tiny grey image with a counterexample, a colour image without, and a tabular input."""
    rng = np.random.default_rng(1)
    grey, colour = rng.uniform(size=(1, 8, 8)), rng.uniform(size=(3, 32, 32))
    other = np.clip(grey + 0.1 * np.sign(rng.normal(size=grey.shape)), 0, 1)
    table = rng.uniform(size=9)
    moved = table.copy()
    moved[[2, 5]] += (0.3, -0.1)
    return [
        GalleryItem(
            index=3,
            input=grey,
            label=3,
            prediction=3,
            verdict="falsified",
            method="pgd",
            model="standard",
            norm="linf",
            eps=0.1,
            counterexample=other,
        ),
        GalleryItem(
            index=4,
            input=colour,
            label=1,
            prediction=1,
            verdict="verified",
            method="smoothing",
            norm="l2",
            radius=0.42,
            confidence=0.999,
            labels=("cat", "dog"),
        ),
        GalleryItem(
            index=5,
            input=table,
            label=0,
            prediction=0,
            verdict="falsified",
            method="milp",
            counterexample=moved,
            features=[f"column {c}" for c in "abcdefghi"],
        ),
        GalleryItem(index=6, input=grey, label=3, prediction=-1, verdict="unknown", method="crown"),
    ]
