"""The columns of rows and runs, in ledgers and tables."""

COLUMNS: dict[str, type] = {
    "run": str,
    "model": str,
    "data": str,
    "index": int,
    "label": int,
    "prediction": int,
    "verdict": str,
    "reason": str,
    "radius": float,
    "margin": float,
    "method": str,
    "norm": str,
    "eps": float,
    "confidence": float,
    "seconds": float,
    "evidence": str,
    "kind": str,
    "subject": str,
    "threat": str,
}
"""Columns of a row; `eps` may be None, the other numbers may be NaN but are never missing.

verdict is about the threat of size eps, 1 for one without a single size. A row without eps is about no
threat: its verdict is "", and its radius is what it claims (0: nothing). kind, subject and threat are
those of its claim (`certus.core.claim`), which all rows of a run share.

evidence is JSON text: all that a statistical certificate rests on (`evaluation.transcript`), "" where
there is none.
"""

RUN_COLUMNS: dict[str, type] = {
    "run": str,
    "model": str,
    "data": str,
    "split_size": int,
    "method": str,
    "kind": str,
    "subject": str,
    "threat": str,
    "alpha": float,
    "settings": str,
    "norm": str,
    "eps": float,
    "seed": int,
    "versions": str,
    "model_hash": str,
    "data_hash": str,
    "card": str,
    "started": str,
}
"""Columns of a run; `eps` may be None. kind to settings are its claim; subject, threat, settings, versions
and card are JSON text."""
