"""Flips with a chance for ones and another for zeros, for sparse binary data (Bojchevski et al. 2020)."""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import comb, lcm
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from certus.core import ArgumentError, validate
from certus.smoothing.noise.base import Noise
from certus.smoothing.noise.likelihood import Regions
from certus.smoothing.noise.whole import EXACT, decimal, fill_whole, most_changes
from certus.smoothing.quantised import refuse_off_grid, refuse_other_size

_FARTHEST = 256  # larger radii are not looked for, unless nothing limits them


@dataclass(frozen=True)
class SparseFlips(Noise):
    """Each of `size` binary values: a 0 becomes 1 with chance p_add, a 1 becomes 0 with chance p_remove.

    Inputs have `size` values 0 or 1; others are refused. Both chances are at least 0 and below 1,
    add up to less than 1, are not both 0, and are read as the decimal numbers they are written as.

    `survives(pA, pB, added, removed)`: no change of that many zeros to ones and ones to zeros changes
    the answer. An outcome's likelihood ratio depends only on in how many of the changed positions it
    shows the changed value, so there are added + removed + 1 regions, and the certificate is exact by
    Neyman and Pearson's lemma, in whole numbers (Bojchevski, Gasteiger and Guennemann 2020, section 4).
    The radius is L0: the largest r such that all pairs with added + removed = r survive. Radii above
    256 are not looked for.
    """

    p_add: float
    p_remove: float
    size: int
    levels: ClassVar[int] = 1
    norm: ClassVar[str] = "l0"
    additive: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse chances that are none, or that make a value likelier to change than to stay."""
        for name, value in (("p_add", self.p_add), ("p_remove", self.p_remove)):
            if not (isinstance(value, int | float) and 0 <= value < 1):
                raise ArgumentError(f"{name} must be a number with 0 <= {name} < 1, got {value!r}")
        validate.count(self.size, "size")
        add, remove, parts = self._weights
        if not 0 < add + remove < parts:
            raise ArgumentError("p_add + p_remove must be above 0 and below 1")
        if parts >= EXACT:
            raise ArgumentError("p_add and p_remove have too many digits to be drawn exactly")

    @property
    def _weights(self) -> tuple[int, int, int]:
        """(p_add, p_remove) as whole numbers over the third."""
        add, remove = decimal(self.p_add), decimal(self.p_remove)
        parts = lcm(add.denominator, remove.denominator)
        return int(add * parts), int(remove * parts), parts

    def check(self, x: Tensor) -> None:
        """Refuse inputs of another size or with other values than 0 and 1."""
        refuse_other_size(x, x[0].numel(), self.size, "values")
        refuse_off_grid(x, self.levels)

    def fill(self, out: Tensor, generator: torch.Generator) -> None:
        """Whole numbers, which `apply` compares with the chances."""
        fill_whole(out, self._weights[2], generator)

    def apply(self, x: Tensor, draws: Tensor, out: Tensor) -> Tensor:
        """Ones and zeros, some of them flipped."""
        add, remove, _ = self._weights
        one = x > 0.5
        return out.copy_((draws < torch.where(one, remove, add)) != one)

    def survives(self, lower: float, upper: float, added: int, removed: int) -> bool:
        """Whether a class of probability >= lower stays above all others (<= upper each).

        So many zeros become ones and ones become zeros, or fewer of either. Probabilities above
        1 - lower count as 1 - lower. Raises ArgumentError for what is no probability or count.
        """
        if not (0 <= lower <= 1 and 0 <= upper <= 1):
            raise ArgumentError(f"a probability must lie in [0, 1], got {lower!r} and {upper!r}")
        validate.count(added, "added", 0)
        validate.count(removed, "removed", 0)
        low, high = Fraction(float(lower)), Fraction(float(upper))
        return self._regions(added, removed).separate(low, min(high, 1 - low))

    def proven(self, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """The largest number of changes of either kind that keeps both classes apart."""
        return most_changes(lower, upper, min(self.size, _FARTHEST), self._survives)

    def _survives(self, lower: Fraction, upper: Fraction, changes: int) -> bool:
        if lower == 1 and self.p_add > 0 and self.p_remove > 0:
            return True  # x can have every outcome that x' can
        return all(
            self._regions(added, changes - added).separate(lower, upper)
            for added in range(changes + 1)
        )

    def _regions(self, added: int, removed: int) -> Regions:
        return _regions(*self._weights, added, removed)


@lru_cache(maxsize=4096)
def _regions(add: int, remove: int, parts: int, added: int, removed: int) -> Regions:
    """Regions of 0, 1, ..., added + removed positions that show the changed value."""
    clean = _product(_binomial(add, parts, added), _binomial(remove, parts, removed))
    changed = _product(
        _binomial(parts - remove, parts, added), _binomial(parts - add, parts, removed)
    )
    return Regions(clean, changed, parts ** (added + removed))


def _binomial(hits: int, parts: int, trials: int) -> tuple[int, ...]:
    """Weights over parts^trials of 0..trials hits, each of chance hits / parts."""
    rest = parts - hits
    return tuple(comb(trials, k) * hits**k * rest ** (trials - k) for k in range(trials + 1))


def _product(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    """Weights of the sum of two independent numbers."""
    found = [0] * (len(one) + len(other) - 1)
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            found[i + j] += a * b
    return tuple(found)
