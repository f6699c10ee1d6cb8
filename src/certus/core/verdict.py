"""The three honest answers, and why an answer is what it is."""

from enum import Enum


class Verdict(Enum):
    """What is known about one input under one threat."""

    VERIFIED = "verified"
    FALSIFIED = "falsified"
    UNKNOWN = "unknown"


class Reason(Enum):
    """Why a verdict is not VERIFIED; the value is the text a user reads."""

    MISCLASSIFIED = (
        "the model is wrong on the clean input, so the input itself is the counterexample"
    )
    ATTACKED = "a counterexample inside the region was found and replayed on the original model"
    LOOSE = "the bound is too loose to decide; try a tighter method (crown, milp, auto)"
    ROUNDING = (
        "the bound is positive, but the rounding of the model's own arithmetic may take it away; try a "
        "tighter method (crown, alpha-crown) or the model in float64"
    )
    RADIUS = "the certified radius is smaller than the threat's"
    ABSTAINED = (
        "too few noise samples agree; the smoothed classifier abstains (more samples may help)"
    )
    WRONG_CLASS = "the smoothed classifier predicts another class than the label"
    TIMEOUT = "the time limit was reached; raise timeout"
    NUMERICAL = "a bound was NaN, infinite or crossed, so nothing may be concluded from it"
    SOLVER = "the solver gave no usable dual bound"
    SURVIVED = "no counterexample was found, which proves nothing"
