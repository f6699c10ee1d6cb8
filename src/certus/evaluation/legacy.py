"""Tables of earlier versions, whose rows lack their claim: it is told from names and texts, once, here."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from certus.core.claim import ATTACK, CERTIFICATE, EXACT, NETWORK
from certus.core.kinds import KIND, text
from certus.evaluation.metrics import Row, certifies, group
from certus.evaluation.spelling import noise_of, subject_of
from certus.smoothing.noise import ElasticGaussian
from certus.threats import NORMS

Run = Mapping[str, Any]

CLAIMED = ("kind", "subject", "threat")
"""The columns that rows of earlier versions lack."""

OLD_RUN_COLUMNS: dict[str, type] = {
    **dict.fromkeys(("run", "model", "data"), str),
    "split_size": int,
    **dict.fromkeys(("method", "config", "norm"), str),
    "eps": float,
    "clip": str,
    "seed": int,
    **dict.fromkeys(("versions", "model_hash", "data_hash", "card", "started"), str),
}
"""Columns of a run in ledgers of schemas 1 to 3."""

_EXACT = ("milp", "exact", "bab")
_NOISE = re.compile(r"noise=(\w+\([^()]*\))")


def completed(rows: Sequence[Row], runs: Mapping[Any, Run] | None = None) -> list[Row]:
    """The rows with the columns CLAIMED, as far as they can be told; those that have them stay.

    A method is an attack if the configuration of its run says so, or if some of its rows speak of an
    attack and none of a proof. What begins with "smooth" is about the smoothed classifier, under the noise
    that transcript or configuration name; unknown where neither does. The clip is that of the run.
    """
    lacking = [row for row in rows if "kind" not in row]
    if not lacking:
        return list(rows)
    known = runs or {}
    kinds = {
        key: _kind(part, known.get(key[0], {}))
        for key, part in group(lacking, lambda row: (row["run"], row["method"])).items()
    }
    return [
        row if "kind" in row else _told(row, kinds[row["run"], row["method"]], known)
        for row in rows
    ]


def claimed(run: Run, row: Row | None) -> Row:
    """A run of OLD_RUN_COLUMNS with its claim, told from itself and a `completed` row of it."""
    threat = {KIND: run["norm"], "eps": run["eps"], "clip": json.loads(run["clip"])}
    found = row or {"kind": _kind([], run), "subject": NETWORK, "threat": text(threat)}
    return {
        **{name: run[name] for name in OLD_RUN_COLUMNS if name not in ("config", "clip")},
        **{name: found[name] for name in CLAIMED},
        "alpha": 1.0 - row["confidence"] if row else 0.0,
        "settings": text({KIND: "Text", "text": run["config"]}),
    }


def _told(row: Row, kind: str, known: Mapping[Any, Run]) -> Row:
    run = known.get(row["run"], {})
    row = _sized(row)
    threat = {KIND: row["norm"], "eps": row["eps"]}
    if "clip" in run:
        threat["clip"] = json.loads(run["clip"])
    claim = {"kind": kind, "subject": _subject(row, run), "threat": text(threat)}
    return row | claim


def _sized(row: Row) -> Row:
    """A verdict without eps was one at eps 0, of which the radius is left, or about a threat without size."""
    if row["eps"] is not None or not row["verdict"]:
        return row
    if row["norm"] not in NORMS and not row["radius"] > 0:
        return row | {"eps": 1.0}
    return row | {"verdict": "", "radius": row["radius"] if row["verdict"] == "verified" else 0.0}


def _kind(rows: Sequence[Row], run: Run) -> str:
    config = str(run.get("config", ""))
    method = str(rows[0]["method"] if rows else run["method"])
    if method in _EXACT:
        return EXACT
    if config:
        return ATTACK if config.startswith("attack ") else CERTIFICATE
    if any(map(certifies, rows)):
        return CERTIFICATE
    named = method.removeprefix("smoothed-") in ("pgd", "fgsm")
    return ATTACK if named or any(row["reason"] == "survived" for row in rows) else CERTIFICATE


def _subject(row: Row, run: Run) -> str:
    if not str(row["method"]).strip().casefold().startswith("smooth"):
        return NETWORK
    found = _NOISE.search(str(run.get("config", "")))
    record = {"noise": found.group(1) if found else None} | _evidence(row)
    if isinstance(noise_of(record), ElasticGaussian):  # of one input; their source is one function
        return text({KIND: "InputDependent"})
    return subject_of(record)


def _evidence(row: Row) -> dict[str, Any]:
    """The transcript, if it can be read; who needs more of it says what is wrong."""
    try:
        found = json.loads(row.get("evidence") or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
