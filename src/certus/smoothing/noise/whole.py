"""Whole radii: how many changes a certificate survives, found in exact arithmetic."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

EXACT = 2**24
"""Whole numbers below it are exact in float32, which draws are held in."""

Survives = Callable[[Fraction, Fraction, int], bool]


def most_changes(lower: np.ndarray, upper: np.ndarray, size: int, survives: Survives) -> np.ndarray:
    """The largest r <= size with survives(lower, upper, r) for each pair of probabilities, float64.

    The floats are taken as the rational numbers that they are. `survives` must hold for r = 0 and
    for every r below one that it holds for.
    """
    pairs = zip(lower.flat, upper.flat, strict=True)
    found = [_most(Fraction(float(p)), Fraction(float(q)), size, survives) for p, q in pairs]
    return np.array(found, dtype=np.float64).reshape(lower.shape)


def _most(lower: Fraction, upper: Fraction, size: int, survives: Survives) -> int:
    """In steps that double until one fails, then by bisection: large r are dear and seldom needed."""
    good, step = 0, 1
    while good + step <= size and survives(lower, upper, good + step):
        good, step = good + step, 2 * step
    bad = min(good + step, size + 1)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if survives(lower, upper, middle) else (good, middle)
    return good


def fill_whole(out: Tensor, number: int, generator: torch.Generator) -> None:
    """Overwrite out with whole numbers 0..number - 1 of one chance each, number < EXACT.

    53 bits make them, so that no chance of a set of them is off by more than number / 2^53. The 32
    bits of `random_` would leave 2e-4 of a value's chance to stay, where number is 10 million.
    """
    uniform = torch.empty(out.shape, dtype=torch.float64).uniform_(0, number, generator=generator)
    out.copy_(uniform.floor_().clamp_(max=number - 1))


def decimal(probability: float) -> Fraction:
    """A probability as the decimal number that its digits spell: 0.8 is 4/5."""
    return Fraction(str(float(probability)))
