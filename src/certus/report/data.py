"""What a report shows, as plain frozen records: the renderer sees nothing else."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from certus.core import ArgumentError
from certus.evaluation.metrics import smoothed

Row = Mapping[str, Any]

KINDS = ("certified", "attack")
SUMMARY = (
    *(
        "model",
        "method",
        "subject",
        "norm",
        "eps",
        "clean",
        "certified",
        "attack",
        "attack_n",
        "gap",
        "gap_n",
    ),
    *("confidence", "n", "inputs"),
)


def number(value: Any) -> float:
    """`value` as a float; NaN for None, text and anything else that is no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve: accuracy of (model, method, norm) against eps, with its 95% binomial interval.

    kind is `certified` (a lower bound of robust accuracy) or `attack` (an upper bound). eps rises
    strictly; accuracy, low and high are fractions in [0, 1] or NaN, one per eps. dense is True for
    a method that gives a radius (the curve is known everywhere), False for one that was run at
    the listed eps only. confidence is 1 for proofs, 1 - alpha for statistical certificates. start is
    the accuracy at eps 0 of the inputs attacked first, where an attack's curve begins. n says of how many
    inputs each accuracy is, inputs which they are in all; both may be empty where that is not known.
    """

    model: str
    method: str
    norm: str
    eps: tuple[float, ...]
    accuracy: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    kind: str = "certified"
    dense: bool = False
    confidence: float = 1.0
    start: float = math.nan
    n: tuple[int, ...] = ()
    inputs: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        """Refuse curves that cannot be drawn truthfully."""
        name = f"the curve of {self.method} on {self.model}"
        if self.kind not in KINDS:
            raise ArgumentError(
                f"{name}: kind must be one of {', '.join(KINDS)}, got {self.kind!r}"
            )
        if not len(self.eps) == len(self.accuracy) == len(self.low) == len(self.high) >= 1:
            raise ArgumentError(
                f"{name} needs one accuracy, low and high for each eps, at least one"
            )
        if not all(a < b for a, b in zip(self.eps, self.eps[1:], strict=False)):
            raise ArgumentError(f"{name}: eps must rise strictly, got {self.eps}")
        values = (*self.accuracy, *self.low, *self.high, self.start)
        if any(not math.isnan(v) and not 0 <= v <= 1 for v in values):
            raise ArgumentError(f"{name}: accuracies are fractions, give values from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Sandwich:
    """Counts among n inputs of one network at one eps: certified <= exact <= attacked.

    certified: proven by an incomplete method; exact: proven by any method, None where no exact
    method ran; attacked: correct on the clean input and not falsified; decided: settled either way.
    Raises ArgumentError where the order does not hold: then one of the counts is wrong.
    """

    model: str
    norm: str
    eps: float
    n: int
    certified: int
    exact: int | None
    attacked: int
    decided: int

    def __post_init__(self) -> None:
        """Refuse counts out of order."""
        middle = [] if self.exact is None else [self.exact]
        chain = [0, self.certified, *middle, self.attacked, self.n]
        if chain != sorted(chain):
            raise ArgumentError(
                f"{self.model}, {self.norm}:{self.eps:g}: certified <= exact <= attacked <= n fails "
                f"with {chain[1:]}; one of these counts is wrong, so no report is written"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class GalleryItem:
    """One input to show: image [C, H, W] (C is 1 or 3) with values in clip, or features [D].

    counterexample has the input's shape and is None where none was found. radius is NaN where the
    method gives none. labels names the classes, features the entries of a tabular input.
    """

    index: int
    input: Any
    label: int
    prediction: int
    verdict: str
    method: str
    model: str = ""
    norm: str = ""
    eps: float | None = None
    radius: float = math.nan
    confidence: float = 1.0
    counterexample: Any = None
    clip: tuple[float, float] = (0.0, 1.0)
    labels: Sequence[str] = ()
    features: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse shapes that cannot be shown."""
        shape = np.shape(self.input)
        if len(shape) not in (1, 3) or 0 in shape:
            raise ArgumentError(f"a gallery input is [C, H, W] or [D], got shape {list(shape)}")
        if len(shape) == 3 and shape[0] not in (1, 3):
            raise ArgumentError(f"a gallery image has 1 or 3 channels, got {shape[0]}")
        if self.counterexample is not None and np.shape(self.counterexample) != shape:
            raise ArgumentError(
                f"input {self.index}: the counterexample has shape "
                f"{list(np.shape(self.counterexample))}, the input {list(shape)}"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportData:
    """Everything a report shows; the renderer computes no result of its own.

    rows and runs are the ledger's tables as dictionaries. curves holds one Line per
    (model, method, norm). summary has one dictionary per (model, method, norm) at the headline eps,
    keys as in certus.evaluation.summary. headline maps a norm to its headline eps. reproducibility
    maps a name to a text (versions, seeds, commands).
    notes are warnings that a reader must see. compared counts the pairs of a certificate and a
    counterexample that were checked against each other. smoothed holds the smoothing certificates by data
    set and norm (`report.smoothed.Group`), audited what their transcripts prove (`Checked`).
    Raises ArgumentError where there is nothing to show.
    """

    title: str
    rows: Sequence[Row]
    runs: Sequence[Row]
    curves: Sequence[Line]
    summary: Sequence[Row]
    headline: Mapping[str, float] = field(default_factory=dict)
    sandwich: Sequence[Sandwich] = ()
    compared: int = 0
    gallery: Sequence[GalleryItem] = ()
    reproducibility: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    smoothed: Sequence[Any] = ()
    audited: Any = None

    def __post_init__(self) -> None:
        """Refuse an empty report and summaries without their keys."""
        if not self.rows:
            raise ArgumentError(
                "there are no evaluation rows; run `certus certify` or `certus compare` first"
            )
        if not self.summary:
            raise ArgumentError("there is no summary; give at least one row per model and method")
        for row in self.summary:
            missing = [key for key in SUMMARY if key not in row]
            if missing:
                raise ArgumentError(f"a summary row lacks {', '.join(missing)}")

    @property
    def only_smoothed(self) -> bool:
        """Whether smoothing certificates are all that there is: then their section says everything."""
        held = sum(entry.figures.n for group in self.smoothed for entry in group.entries)
        return held == len(self.rows)

    @property
    def norms(self) -> list[str]:
        """Norms in the order in which curves and summary name them."""
        names = [c.norm for c in self.curves] + [str(row["norm"]) for row in self.summary]
        return list(dict.fromkeys(names))

    @property
    def methods(self) -> list[str]:
        """Every method that appears, certificates first, then attacks."""
        certified = [str(row["method"]) for row in self.summary]
        certified += [c.method for c in self.curves if c.kind == "certified"]
        attacks = [c.method for c in self.curves if c.kind == "attack"]
        return list(dict.fromkeys(certified + attacks))

    def models(self, norm: str) -> list[str]:
        """Models with a curve in this norm, in order."""
        return list(dict.fromkeys(c.model for c in self.curves if c.norm == norm))

    def clean(self, model: str, norm: str) -> tuple[float, int]:
        """Clean accuracy of the model itself (not of its smoothed version) and of how many inputs it is.

        Of the row about most of them; (NaN, 0) where it is not known.
        """
        found = [
            (number(row["clean"]), int(row["n"]))
            for row in self.summary
            if row["model"] == model and row["norm"] == norm and not smoothed(row)
        ]
        known = [(value, n) for value, n in found if not math.isnan(value)]
        return max(known, key=lambda pair: pair[1], default=(math.nan, 0))
