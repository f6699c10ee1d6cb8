"""Laplace noise, for L1 balls (Teng, Lee and Yuan 2020; Yang et al. 2020)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from certus.core import validate
from certus.smoothing.noise.base import Noise
from certus.smoothing.noise.rounding import below, halfway


@dataclass(frozen=True)
class Laplace(Noise):
    """Independent noise of density exp(-|t| / scale) / (2 scale) on every input value.

    scale > 0 in input units; the standard deviation is scale * sqrt(2). Certifies L1 with
    scale / 2 * (F^-1(pA) - F^-1(pB)), F the distribution function of Laplace noise of scale 1:
    -scale ln(2 (1 - pA)) where pB = 1 - pA (Teng et al. 2020, theorem 1; Yang et al. 2020, table 1),
    and scale / 2 ln(pA / pB) where pA <= 1/2.

    Proof. Along a shift t d, |d|_1 = 1, the probability of an event A changes at the rate
    E[1_A sum_i d_i sign(z_i)] / scale, which is at most min(P(A), 1 - P(A)) / scale. So F^-1(P(A)) moves
    by at most 1 / scale for each unit of shift, the top class' down and another's up. A shift along one
    axis attains it for the events z_1 <= t: the radius is tight for both pA and pB, and never below
    max(scale / 2 ln(pA / pB), -scale ln(1 - pA + pB)), the two-sided form of the literature.
    The proof is about real-valued noise; floating-point draws stand for it.
    """

    scale: float
    norm: ClassVar[str] = "l1"

    def __post_init__(self) -> None:
        """Refuse a scale that is not a finite number above zero."""
        validate.positive(self.scale, "scale")

    def fill(self, out: Tensor, generator: torch.Generator) -> None:
        """The quantile function of uniform draws, in float64.

        torch's own exponential draws differ between processors, and on some of them come from streams
        that may overlap.
        """
        uniform = torch.empty(out.shape, dtype=torch.float64).uniform_(-1, 1, generator=generator)
        size = uniform.abs().clamp_(max=1 - 2**-53).neg_().log1p_().mul_(-self.scale)
        out.copy_(size.copysign_(uniform))

    def proven(self, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """Half the difference of the Laplace quantiles, rounded down."""
        return below(self.scale * halfway(_quantile(lower), _quantile(upper)))


def _quantile(probability: np.ndarray) -> np.ndarray:
    """Quantile of Laplace noise of scale 1."""
    with np.errstate(divide="ignore"):
        return np.where(
            probability < 0.5, np.log(2 * probability), -np.log(2 * (1.0 - probability))
        )
