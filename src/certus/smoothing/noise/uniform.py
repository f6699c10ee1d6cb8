"""Uniform noise on a cube, for L1 balls (Lee et al. 2019; Yang et al. 2020)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from certus.core import validate
from certus.smoothing.noise.base import Noise, Probability
from certus.smoothing.noise.rounding import below


@dataclass(frozen=True)
class Uniform(Noise):
    """Independent noise, uniform on [-half_width, half_width], on every input value.

    half_width > 0 in input units. Certifies L1 with half_width * (pA - pB), which is
    2 half_width (pA - 1/2) where pB = 1 - pA (Lee et al. 2019; Yang et al. 2020, theorem on cubes): of
    the cube of noise around x, a share of 1 - prod(1 - |d_i| / (2 half_width)) <= |d|_1 /
    (2 half_width) lies outside that around x + d, and no probability changes by more. Tight: a
    shift along one axis may take all of it from the top class and give it to another.
    The proof is about real-valued noise; floating-point draws stand for it.
    """

    half_width: float
    norm: ClassVar[str] = "l1"

    def __post_init__(self) -> None:
        """Refuse a half width that is not a finite number above zero."""
        validate.positive(self.half_width, "half_width")

    def fill(self, out: Tensor, generator: torch.Generator) -> None:
        """Uniform draws."""
        out.uniform_(-self.half_width, self.half_width, generator=generator)

    def proven(self, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """half_width times the gap, rounded down."""
        return below(self.half_width * (lower - upper))

    def linf(
        self, lower: Probability, upper: Probability | None = None, *, size: int
    ) -> np.ndarray:
        """Certified L-inf radius for inputs of `size` values, float64; arguments as for `radius`.

        2 half_width (1 - (1 - (pA - pB) / 2) ** (1 / size)): the largest cube all of whose shifts keep
        a share of at least 1 - (pA - pB) / 2 of the noise (Yang et al. 2020). Better than converting
        the L1 radius, by a factor of up to 2 ln 2 = 1.39. Raises ArgumentError as `radius` does.
        """
        validate.count(size, "size")
        gap = self.radius(lower, upper) / self.half_width  # rounded down already
        return below(-2 * self.half_width * np.expm1(np.log1p(-gap / 2) / size))
