"""Spelling: the noises and rules that a transcript names, as data or, in those of old, by their text."""

import re
from collections.abc import Mapping
from typing import Any

from certus.core import ArgumentError
from certus.core.claim import smoothed_by
from certus.core.kinds import KIND, Kinds, to_json
from certus.smoothing.derandomized import Blocks, Columns, Derandomized, Rows, Splitting
from certus.smoothing.noise import (
    Ablation,
    AnisotropicGaussian,
    ElasticGaussian,
    Flips,
    Gaussian,
    GeneralGaussian,
    IntegerGaussian,
    Laplace,
    Noise,
    PixelAblation,
    SparseFlips,
    Truncated,
    Uniform,
)
from certus.smoothing.rules import (
    AtRadius,
    Fixed,
    FixedRandomized,
    Largest,
    Precision,
    Rule,
    TwoSided,
)

Record = Mapping[str, Any]

_NOISES: tuple[type[Noise] | type[Derandomized], ...] = (
    *(Gaussian, IntegerGaussian, GeneralGaussian, Truncated, Laplace, Uniform),
    *(ElasticGaussian, Ablation, PixelAblation, Flips, SparseFlips),
    *(Splitting, Columns, Rows, Blocks),
)
NOISES = {kind.__name__: kind for kind in _NOISES}
"""Noises that their text says all of."""

_RULES: tuple[type[Rule], ...] = (Fixed, FixedRandomized, TwoSided, Largest, AtRadius, Precision)
RULES = {kind.__name__: kind for kind in _RULES}

_KINDS = Kinds(*_NOISES, *_RULES)

HASHED = {
    AnisotropicGaussian.__name__: "of its deviations a transcript holds the shape and a hash only",
}
"""Noises made of arrays, for which a hash stands in their text, and why it proves nothing."""

_LONGEST = 400  # characters of a text that is looked at; no noise or rule has half as many
_CALL = re.compile(r"(\w+)\((.*)\)")
_ARGUMENT = re.compile(r"(\w+)=(\w+\([^()]*\)|[^(),]+)(?:, |$)")
_WHOLE = re.compile(r"-?\d+")
_WORDS = {"None": None, "True": True, "False": False}


def noise_of(record: Record) -> Noise | Derandomized | None:
    """The noise that a transcript names; None for one that is not in NOISES."""
    return made(record.get("noise"), NOISES)


def rule_of(record: Record) -> Rule | None:
    """The rule that a transcript names; None for one that is not in RULES."""
    return made(record.get("rule"), RULES)


def subject_of(record: Record) -> str:
    """The function that a transcript speaks of, as in `core.claim`."""
    noise = noise_of(record)
    return smoothed_by(record.get("noise") if noise is None else noise)


def made(told: object, table: Mapping[str, Any]) -> Any:
    """The value that data (`to_json`) or a text of old tells of; None where the table lacks its kind."""
    if not isinstance(told, dict):
        return spelled(told, table)
    try:
        found = _KINDS.from_json(told) if told.get(KIND) in table else None
    except (ArgumentError, TypeError, ValueError, ArithmeticError, RecursionError):
        return None
    return found if found is not None and to_json(found) == told else None


def spelled(told: object, table: Mapping[str, Any]) -> Any:
    """The value of a frozen dataclass in the table that a text is the repr of; None for anything else.

    Its fields may be numbers, None, True, False and noises of NOISES whose fields are. Texts are only
    compared, never run.
    """
    match = _CALL.fullmatch(told) if isinstance(told, str) and len(told) <= _LONGEST else None
    if match is None or match[1] not in table:
        return None
    try:
        made = table[match[1]](**{n: _value(value) for n, value in _ARGUMENT.findall(match[2])})
    except (TypeError, ValueError, ArithmeticError):
        return None
    return made if repr(made) == told else None


def in_words(told: object) -> str:
    """A noise or rule as `Gaussian(sigma=0.5)`, whichever way it is told."""
    if isinstance(told, dict) and KIND in told:
        rest = (f"{name}={in_words(value)}" for name, value in told.items() if name != KIND)
        return f"{told[KIND]}({', '.join(rest)})"
    return str(told)


def why_unknown(told: object, what: str) -> str:
    """Why a noise or rule that a transcript tells of cannot be checked."""
    match = _CALL.fullmatch(told) if isinstance(told, str) else None
    name = told.get(KIND) if isinstance(told, dict) else match[1] if match else None
    reason = HASHED.get(name) if isinstance(name, str) else None
    return reason or f"there is no {what} {in_words(told)[:60]} to check it by"


def _value(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if "(" in text:
        return spelled(text, NOISES)
    return int(text) if _WHOLE.fullmatch(text) else float(text)
