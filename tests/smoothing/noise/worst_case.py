"""Neyman and Pearson's lemma on a finite set of outcomes, and cells of laws on the line."""

import numpy as np


def most(here: np.ndarray, there: np.ndarray, probability: float) -> float:
    """Largest mass `there` of an event of mass at most `probability` `here` (events may be randomised)."""
    here, there = here.ravel(), there.ravel()
    order = np.argsort(-np.log(there + 1e-300) + np.log(here + 1e-300), kind="stable")
    mass = np.concatenate([[0.0], here[order].cumsum()])
    gain = np.concatenate([[0.0], there[order].cumsum()])
    return float(np.interp(probability, mass, gain))


def least(here: np.ndarray, there: np.ndarray, probability: float) -> float:
    """Smallest mass `there` of an event of mass at least `probability` `here`."""
    return float(there.sum()) - most(here, there, float(here.sum()) - probability)


def separated(here: np.ndarray, there: np.ndarray, lower: float, upper: float) -> float:
    """How far the top class stays above any other one, in the worst case (for it and for them)."""
    return least(here, there, lower) - most(here, there, upper)


def product(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The law of a pair of independent outcomes."""
    return rows[:, None] * columns
