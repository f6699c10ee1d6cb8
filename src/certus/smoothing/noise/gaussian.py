"""Gaussian noise, for L2 balls (Cohen, Rosenfeld and Kolter 2019)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from certus.core import ArgumentError, validate
from certus.smoothing.noise.base import Noise
from certus.smoothing.noise.rounding import normal_gap


@dataclass(frozen=True)
class Gaussian(Noise):
    """Independent normal noise of standard deviation sigma > 0 (input units) on every input value.

    Certifies the L2 radius sigma / 2 * (Phi^-1(pA) - Phi^-1(pB)), which is tight (Cohen, Rosenfeld
    and Kolter 2019, theorem 1). The proof is about real-valued noise; floating-point draws stand
    for it. Those of torch in float32 end at 5.77 sigma: the missing tail has probability d 2^-25 for
    d values (9e-5 for 3,072), which a classifier made for it could turn against a claim of so small an
    error. That the generator's law counts as normal is an assumption; `IntegerGaussian` needs none.
    """

    sigma: float
    norm: ClassVar[str] = "l2"

    def __post_init__(self) -> None:
        """Refuse a sigma that is not a finite number above zero."""
        if callable(self.sigma):
            raise ArgumentError(
                "sigma must be one number for all inputs: where it depends on the input, points of the "
                "ball have other noise and this radius is false (Sukenik et al. 2022); InputDependent "
                "takes a rule with a proven bound of how fast sigma changes"
            )
        validate.positive(self.sigma, "sigma")

    def fill(self, out: Tensor, generator: torch.Generator) -> None:
        """Normal draws of mean 0 and standard deviation sigma."""
        out.normal_(0.0, self.sigma, generator=generator)

    def proven(self, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """Half of sigma times the difference of the normal quantiles, rounded down."""
        return self.sigma * normal_gap(lower, upper)
