"""What a row claims, and how surely: rows that contradict themselves are refused before use."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from certus.certifiers import CERTIFIERS
from certus.core import ArgumentError, Verdict
from certus.core.claim import ATTACK, CLAIMS
from certus.core.kinds import KIND, parsed
from certus.core.results import statistical
from certus.evaluation.metrics import Row, canonical, certifies, smoothed
from certus.evaluation.spelling import Record, noise_of, subject_of
from certus.evaluation.transcript import evidence_of
from certus.smoothing.derandomized import Derandomized
from certus.smoothing.noise import ElasticGaussian

_SLACK = 1e-9  # relative; 1 - alpha is rounded
_LARGEST = 2**53
_FAR = 1e100  # no two inputs are so far apart
_ONCE = ("run", "model", "data", "method", "norm", "eps", "index")


def stated(record: Record) -> float | None:
    """The alpha that a transcript states, None where it states none; ArgumentError where it is no chance."""
    return _chance(record, "alpha")


def confidence_of(row: Row) -> float:
    """The smaller of the row's confidence and of what its transcript supports.

    Raises ArgumentError for a transcript whose alpha is no chance, FileError for one that cannot be read.
    """
    alpha, own = stated(evidence_of(row)), float(row["confidence"])
    if alpha is None or 1.0 - own >= alpha * (1 - _SLACK) - math.ulp(1.0):
        return own
    return statistical(alpha)


def alpha_of(row: Row) -> float:
    """The larger of the chances of error that the row and its transcript state; 0 for a proof.

    Raises what `confidence_of` raises.
    """
    alpha, own = stated(evidence_of(row)), 1.0 - float(row["confidence"])
    if alpha is not None and own <= alpha * (1 + _SLACK) + math.ulp(1.0):
        return alpha
    return canonical(own)


def weakest(rows: Sequence[Row]) -> list[Row]:
    """The rows, each with the confidence of `confidence_of`."""
    return [row | {"confidence": confidence_of(row)} for row in rows]


def settled(row: Row) -> Row:
    """The row with the confidence of `confidence_of`.

    Raises ArgumentError, which names the input, for a row that contradicts itself, its claim or its
    transcript, or whose confidence its method cannot give; FileError for a transcript that cannot be read.
    """
    why = next((text for text, wrong in _FAULTS if wrong(row)), "") or _unsupported(row)
    if why:
        raise ArgumentError(f"input {row['index']} of {row['model']} by {row['method']}: {why}")
    return row | {"confidence": confidence_of(row)}


def distinct(rows: Sequence[Row]) -> list[Row]:
    """The rows without repetitions; ArgumentError where one run answers an input twice, differently.

    Two answers that differ in `seconds` alone are one.
    """
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        first = found.setdefault(tuple(row[name] for name in _ONCE), row)
        if first is not row and _answer(first) != _answer(row):
            raise ArgumentError(
                f"input {row['index']} of {row['model']} by {row['method']}: run {row['run']} answers it "
                "twice, and not alike; give one table of each run"
            )
    return list(found.values())


def _answer(row: Row) -> str:
    return repr(sorted((name, value) for name, value in row.items() if name != "seconds"))


_FAULTS: tuple[tuple[str, Callable[[Row], bool]], ...] = (
    ("its verdict is none", lambda r: r["verdict"] not in ("", *(v.value for v in Verdict))),
    ("its index is below 0", lambda r: r["index"] < 0),
    ("its prediction is no class", lambda r: r["prediction"] < -1),
    (
        "its eps is no size (0 or more, finite)",
        lambda r: r["eps"] is not None and not 0 <= r["eps"] < _FAR,
    ),
    ("its radius is no distance of inputs", lambda r: _FAR <= r["radius"] < math.inf),
    ("its radius is below 0", lambda r: r["radius"] < 0),
    ("its confidence does not lie in (0, 1]", lambda r: not 0 < r["confidence"] <= 1),
    ("its time is below 0 or endless", lambda r: r["seconds"] < 0 or r["seconds"] == math.inf),
    ("its kind is none", lambda r: r["kind"] not in CLAIMS),
    ("its subject is none", lambda r: not _told_of(r["subject"])),
    ("its threat is not that of its norm and eps", lambda r: not _fits(r)),
    ("it has an eps, but no verdict about it", lambda r: r["eps"] is not None and not r["verdict"]),
    ("it has a verdict, but no eps", lambda r: r["eps"] is None and bool(r["verdict"])),
    ("an attack certifies nothing", lambda r: r["kind"] == ATTACK and certifies(r)),
    (
        "it is verified at its eps, but its radius is smaller",
        lambda r: (
            r["eps"] is not None
            and _told_of(r["threat"]).get(KIND) == r["norm"]  # else eps is no radius
            and r["verdict"] == "verified"
            and r["radius"] < r["eps"] * (1 - 1e-6)
        ),
    ),
    (
        "samples prove no infinite radius",
        lambda r: smoothed(r) and r["radius"] == math.inf,
    ),
)
"""What no row may say, and how it is told."""


def _told_of(told: Any) -> dict[str, Any]:
    """A JSON object that says its kind, {} for anything else."""
    try:
        found = parsed(told)
    except (ArgumentError, TypeError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get(KIND), str) else {}


def _fits(row: Row) -> bool:
    """Whether norm and eps are those of the threat; without a single size the norm is kind and hash."""
    threat = _told_of(row["threat"])
    if threat.get(KIND) == row["norm"]:
        return bool(threat.get("eps") == row["eps"])
    return bool(threat) and str(row["norm"]).startswith(f"{threat[KIND]}:") and row["eps"] == 1.0


def _unsupported(row: Row) -> str:
    """Why the transcript or the method cannot support the row's confidence; "" where they do."""
    record = evidence_of(row)
    try:
        sure = confidence_of(row) == 1
        _chance(record, "from_alpha")
        _told(record)
    except ArgumentError as error:
        return str(error)
    if not _about(row, record):
        return "its transcript is about another function than its claim"
    if not smoothed(row):
        known = str(row["method"]).strip().casefold() in CERTIFIERS
        return "" if sure or not known else "its method proves, but its confidence is below 1"
    attack = row["eps"] is not None and not certifies(row)
    return "" if attack else _unsampled(row, record, sure)


def _about(row: Row, record: Record) -> bool:
    """Whether a transcript may speak of the function of the claim."""
    if "noise" not in record or row["subject"] == subject_of(record):
        return True
    own = isinstance(noise_of(record), ElasticGaussian)  # that of a single input
    return own and _told_of(row["subject"]).get(KIND) == "InputDependent"


def _unsampled(row: Row, record: Record, sure: bool) -> str:
    """Why no samples support what a certificate of a smoothed classifier claims; "" where they may."""
    if row["eps"] is not None and record:
        return "its transcript is about a radius, not about an eps"
    if sure and not isinstance(noise_of(record), Derandomized):
        return "its confidence is 1, but samples prove nothing for sure"
    if sure and certifies(row) and "counts" not in record:
        return "it claims a proof, but the counts of its copies are missing"
    return ""


def _chance(record: Record, key: str) -> float | None:
    """A number in (0, 1), None where there is none; ArgumentError for anything else."""
    if key not in record:
        return None
    value = record[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise ArgumentError(
            f"its evidence states {key} {str(value)[:40]}, which is no chance in (0, 1)"
        )
    return float(value)


def _told(record: Record) -> None:
    """ArgumentError where what a report tells of a transcript is not what it should be."""
    for key in ("n", "n0"):
        value = record.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _LARGEST:
            raise ArgumentError(f"its evidence states {key} {str(value)[:40]}, which is no count")
    if "fits" in record:
        fits = record["fits"]
        if not isinstance(fits, list) or "n" not in record or "alpha" not in record:
            raise ArgumentError("its evidence states alphas that fit, but not of what")
        for alpha in fits:
            _chance({"fits": alpha}, "fits")
