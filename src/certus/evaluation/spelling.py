"""Spelling: the noises and rules that a transcript names, by tables of their texts."""

import re
from collections.abc import Mapping
from typing import Any

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
    return spelled(record.get("noise"), NOISES)


def rule_of(record: Record) -> Rule | None:
    """The rule that a transcript names; None for one that is not in RULES."""
    return spelled(record.get("rule"), RULES)


def spelled(text: object, table: Mapping[str, Any]) -> Any:
    """The value of a frozen dataclass in the table that `text` is the repr of; None for anything else.

    Its fields may be numbers, None, True, False and noises of NOISES whose fields are. Texts are only
    compared, never run.
    """
    match = _CALL.fullmatch(text) if isinstance(text, str) and len(text) <= _LONGEST else None
    if match is None or match[1] not in table:
        return None
    try:
        made = table[match[1]](**{n: _value(value) for n, value in _ARGUMENT.findall(match[2])})
    except (TypeError, ValueError, ArithmeticError):
        return None
    return made if repr(made) == text else None


def why_unknown(text: object, what: str) -> str:
    """Why a noise or rule of this text cannot be checked."""
    match = _CALL.fullmatch(text) if isinstance(text, str) else None
    reason = HASHED.get(match[1]) if match else None
    return reason or f"there is no {what} {str(text)[:60]} to check it by"


def _value(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if "(" in text:
        return spelled(text, NOISES)
    return int(text) if _WHOLE.fullmatch(text) else float(text)
