"""Discrete flips, for L0: every value is kept or replaced by another one of the grid (Lee et al. 2019)."""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import gcd
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from certus.core import ArgumentError, validate
from certus.smoothing.noise.base import Noise
from certus.smoothing.noise.likelihood import Regions
from certus.smoothing.noise.whole import EXACT, decimal, fill_whole, most_changes
from certus.smoothing.quantised import grid_positions, refuse_off_grid, refuse_other_size

_FARTHEST = 512  # larger radii are not looked for, unless the class is certain


@dataclass(frozen=True)
class Flips(Noise):
    """Each value of an input stays with probability `keep`, else it moves to any other of the grid.

    Inputs have `size` values k / levels, k = 0..levels (MNIST in black and white: levels 1; 8-bit
    images: levels 255); others are refused. The `levels` other values are equally likely. keep is read
    as the decimal number that it is written as (0.8 is 4/5), must exceed the chance of each other
    value, and is drawn by whole numbers, exactly but for 2^-29 of a chance.

    Certifies L0: no change of at most r values to other grid values changes the answer. r features
    differ between x and x'; u of them are seen as in x and v as in x', and all outcomes of one u - v
    have the same likelihood ratio. So the certificate is exact by Neyman and Pearson's lemma over
    2 r + 1 regions, in whole numbers (Lee, Yuan, Chang and Jaakkola 2019, section 4; features in which
    x and x' agree cancel from the ratio, so that size does not enter): the smallest probability of the
    top class at x' must be above the largest of any other. It is tight for pA alone. Radii above 512
    are not looked for, but where pA is 1 the radius is `size`.
    """

    keep: float
    size: int
    levels: int = 1
    norm: ClassVar[str] = "l0"
    additive: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse numbers that are no sizes, and a keep that is too small or has too many digits."""
        validate.probability(self.keep, "keep")
        validate.count(self.size, "size")
        validate.count(self.levels, "levels")
        keep, other = self._weights
        if keep <= other:
            raise ArgumentError(
                f"keep must exceed the chance of each other value, 1/{self.levels + 1}, "
                f"got {self.keep!r}"
            )
        if keep + self.levels * other >= EXACT:
            raise ArgumentError(f"keep has too many digits to be drawn exactly: {self.keep!r}")

    @property
    def _weights(self) -> tuple[int, int]:
        """Chances of the kept value and of each other one, in whole numbers."""
        keep = decimal(self.keep)
        stay, move = keep.numerator * self.levels, keep.denominator - keep.numerator
        common = gcd(stay, move)
        return stay // common, move // common

    def check(self, x: Tensor) -> None:
        """Refuse inputs of another size or off the grid."""
        refuse_other_size(x, x[0].numel(), self.size, "values")
        refuse_off_grid(x, self.levels)

    def fill(self, out: Tensor, generator: torch.Generator) -> None:
        """How many grid values to go on, modulo levels + 1: 0 to keep the value."""
        keep, other = self._weights
        fill_whole(out, keep + self.levels * other, generator)
        _steps(out, keep, other)

    def apply(self, x: Tensor, draws: Tensor, out: Tensor) -> Tensor:
        """Values moved on the grid, around its end."""
        torch.add(draws, grid_positions(x, self.levels), out=out)
        return out.remainder_(self.levels + 1).div_(self.levels)

    def proven(self, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """The largest number of changes that keeps both classes apart."""
        return most_changes(lower, upper, self.size, self._survives)

    def limit(self, changes: int) -> Fraction:
        """The exact probability above which the top class is certified against so many changes.

        rho_r^-1(1/2) of Lee et al. 2019, one-sided. Raises ArgumentError for changes < 0.
        """
        return _regions(*self._weights, self.levels, validate.count(changes, "changes", 0)).limit

    def _survives(self, lower: Fraction, upper: Fraction, changes: int) -> bool:
        if lower == 1:  # every outcome that x can have, and x' has no others
            return True
        if changes > _FARTHEST:
            return False
        return _regions(*self._weights, self.levels, changes).separate(lower, upper)


def _steps(draws: Tensor, keep: int, other: int) -> Tensor:
    """Whole numbers below keep + levels * other to steps, in place: the first `keep` of them to 0, the
    next `other` to 1, and so on.
    """
    return draws.sub_(keep).div_(other, rounding_mode="floor").add_(1).clamp_(min=0)


@lru_cache(maxsize=1024)
def _regions(keep: int, other: int, levels: int, changes: int) -> Regions:
    """Regions of u - v = changes, ..., -changes: the coefficients of (keep X^2 + rest X + other)^changes.

    The power is that of one long whole number whose digits are the coefficients.
    """
    rest = (levels - 1) * other
    total = (keep + rest + other) ** changes
    width = total.bit_length()
    power = ((keep << 2 * width) + (rest << width) + other) ** changes
    mask = (1 << width) - 1
    falling = tuple((power >> width * i) & mask for i in range(2 * changes, -1, -1))
    return Regions(falling, falling[::-1], total)
