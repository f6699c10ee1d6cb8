"""Transcripts: what a smoothing certificate rests on, and whether it proves the radius that a row claims."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from certus.core import FileError
from certus.core.random import derive
from certus.smoothing.derandomized import Derandomized, Splitting
from certus.smoothing.noise import (
    Ablation,
    Flips,
    Gaussian,
    IntegerGaussian,
    Laplace,
    Noise,
    PixelAblation,
    Uniform,
)
from certus.smoothing.rules import (
    AtRadius,
    Fixed,
    FixedRandomized,
    Largest,
    Path,
    Precision,
    Rule,
    TwoSided,
)
from certus.smoothing.smoothed import COIN

Record = Mapping[str, Any]

_KINDS: tuple[type[Noise] | type[Derandomized], ...] = (
    *(Gaussian, IntegerGaussian, Laplace, Uniform, Ablation, PixelAblation, Flips, Splitting),
)
NOISES = {kind.__name__: kind for kind in _KINDS}
"""Noises whose proof needs no more than what a transcript holds; others are not checked."""

_RULES: tuple[type[Rule], ...] = (Fixed, FixedRandomized, TwoSided, Largest, AtRadius, Precision)
RULES = {kind.__name__: kind for kind in _RULES}

_SLACK = 1e-9  # relative; other builds of the same functions differ by less
_WORDS = {"None": None, "True": True, "False": False}
_CALL = re.compile(r"(\w+)\((.*)\)")

PROVED, UNCHECKED, WRONG = "proved", "unchecked", "wrong"


@dataclass(frozen=True)
class Audit:
    """What the counts of a row say of its claim: `state` PROVED, UNCHECKED or WRONG, and why."""

    state: str
    why: str = ""


def evidence_of(row: Record) -> dict[str, Any]:
    """The transcript of a row, {} where it has none; FileError where it is not a JSON object."""
    text = row.get("evidence", "")
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise FileError(f"the evidence of input {row.get('index')} is damaged: {text[:60]!r}")
    return found


def noise_of(record: Record) -> Noise | Derandomized | None:
    """The noise that a transcript names; None for one that is not in NOISES."""
    return _spelled(str(record.get("noise", "")), NOISES)


def rule_of(record: Record) -> Rule | None:
    """The rule that a transcript names; None for one that is not in RULES."""
    return _spelled(str(record.get("rule", "")), RULES)


def reproduced(record: Record) -> tuple[float, float] | None:
    """The radius that the counts of a transcript prove, at least and at most (the noise's norm, input units).

    Found anew from the noise, the rule, alpha and the counts of all classes. The two differ only where a
    rule that looked several times kept a bound from an earlier look, whose counts are not kept: the first
    rests on the last counts alone, the second on the best counts that could have led to them. None where
    noise or rule is not known here, or where the transcript holds too little. Raises ValueError (also
    ArgumentError), KeyError or TypeError where it contradicts itself.
    """
    noise = noise_of(record)
    if noise is None:
        return None
    counts = np.array(record["counts"], dtype=np.int64)
    taken, chosen = int(record["n"]), int(record["class"])
    if counts.ndim != 1 or (counts < 0).any() or counts.sum() != taken:
        raise ValueError("its counts do not add up to its samples")
    if not 0 <= chosen < len(counts):
        raise ValueError("its class is not among the counted ones")
    if isinstance(noise, Derandomized):
        if noise.copies(()) != taken or int(counts.argmax()) != chosen:
            raise ValueError("its counts are not those of all copies")
        own = float(noise.proven(counts[None], ())[0])
        return own, own
    rule = rule_of(record)
    if rule is None:
        return None
    looks = np.array([at for at in rule.looks() if at <= taken])
    if not len(looks) or looks[-1] != taken:
        raise ValueError(f"its rule does not look after {taken} samples")
    return _judged(record, noise, rule, looks[-1:], counts), _judged(
        record, noise, rule, looks, counts
    )


def audit(row: Record) -> Audit:
    """Whether the counts that a smoothing row holds prove its radius, class and confidence.

    WRONG where they prove less; UNCHECKED where they were not kept, or where noise, rule or norm are such
    that they cannot be checked here. A row that certifies nothing claims nothing. Raises FileError as
    `evidence_of` does.
    """
    if row["verdict"] != "verified":
        return Audit(PROVED)
    record = evidence_of(row)
    if "counts" not in record:
        return Audit(UNCHECKED, "its counts were not kept")
    try:
        found = reproduced(record)
        alpha = float(record.get("alpha", 0.0))
    except (ValueError, KeyError, TypeError) as error:
        return Audit(WRONG, str(error) if isinstance(error, ValueError) else f"it lacks {error}")
    if found is None:
        return Audit(UNCHECKED, f"there is no rule to check {str(record.get('noise'))[:60]} by")
    return _compared(row, record, found, alpha)


def _compared(row: Record, record: Record, found: tuple[float, float], alpha: float) -> Audit:
    least, most = (value * (1 + _SLACK) for value in found)
    noise = noise_of(record)
    if row["prediction"] != record["class"]:
        return Audit(WRONG, f"its samples chose class {record['class']}")
    if row["confidence"] > 1.0 - alpha + _SLACK:
        return Audit(WRONG, f"its confidence is that of another alpha than {alpha:g}")
    if not row["radius"] <= most:
        return Audit(WRONG, f"it claims {row['radius']:.6g}, its counts prove {found[1]:.6g}")
    if noise is not None and noise.norm != row["norm"]:
        return Audit(UNCHECKED, f"it was converted from {noise.norm} to {row['norm']}")
    if row["radius"] > least:
        return Audit(UNCHECKED, "it rests on an earlier look, whose counts were not kept")
    return Audit(PROVED)


def _judged(
    record: Record, noise: Noise, rule: Rule, looks: np.ndarray, counts: np.ndarray
) -> float:
    """The radius where the rule saw these looks, with as many hits at the earlier ones as can be."""
    chosen = int(record["class"])
    tally = np.repeat(counts[None], len(looks), 0)
    tally[:-1] = 0
    tally[:, chosen] = np.minimum(counts[chosen], looks)
    tally[:-1, chosen - 1] = looks[:-1] - tally[:-1, chosen]
    uniform = derive(int(record["seed"]), int(record["id"]), COIN) / 2.0**63
    found = rule.judge(Path(looks, tally, chosen, uniform), noise, float(record["alpha"]))
    if found is None:
        raise ValueError(f"its rule would not have stopped after {looks[-1]} samples")
    return float(noise.radius(found.lower, found.upper))


def _spelled(text: str, table: Mapping[str, Any]) -> Any:
    """The value of a frozen dataclass in the table that `text` is the repr of; None for any other text."""
    match = _CALL.fullmatch(text)
    if match is None or match[1] not in table:
        return None
    arguments = (part.partition("=") for part in match[2].split(", ") if part)
    try:
        made = table[match[1]](**{name: _scalar(value) for name, _, value in arguments})
    except (TypeError, ValueError):
        return None
    return made if repr(made) == text else None


def _scalar(text: str) -> int | float | bool | None:
    if text in _WORDS:
        return _WORDS[text]
    return int(text) if re.fullmatch(r"-?\d+", text) else float(text)
