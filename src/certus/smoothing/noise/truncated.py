"""Generalised Gaussian noise cut to a ball, the second law of double sampling (Li et al. 2022)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.special import gammaincinv
from torch import Tensor

from certus.core import ArgumentError, validate
from certus.smoothing.noise.base import Noise
from certus.smoothing.noise.general_gaussian import GeneralGaussian
from certus.smoothing.noise.isotropic import Inner


@dataclass(frozen=True)
class Truncated(Noise):
    """`whole`, given that it lies in the ball that has probability `mass` (in (0, 1)) under it.

    It certifies nothing by itself (its radius is 0): it says about `whole` where its errors lie.
    """

    whole: GeneralGaussian
    mass: float
    norm: ClassVar[str] = "l2"

    def __post_init__(self) -> None:
        """Refuse a law that is no GeneralGaussian and a mass outside (0, 1)."""
        if not isinstance(self.whole, GeneralGaussian):
            raise ArgumentError(f"whole must be a GeneralGaussian, got {self.whole!r}")
        validate.probability(self.mass, "mass")

    @property
    def limit(self) -> float:
        """Radius of the ball, in input units."""
        return self.whole.scale * math.sqrt(2 * self._squared)

    @property
    def _squared(self) -> float:
        return float(gammaincinv(self.whole.law.shape, self.mass))

    def check(self, x: Tensor) -> None:
        """Refuse inputs of another size."""
        self.whole.check(x)

    def fill(self, out: Tensor, generator: torch.Generator) -> None:
        """Uniform directions, and lengths drawn anew until they lie in the ball."""
        length = self.whole.lengths(len(out), generator)
        while bool((outside := length > self.limit).any()):
            length[outside] = self.whole.lengths(int(outside.sum()), generator)
        out.normal_(generator=generator)
        factor = length / out.flatten(1).norm(dim=1).double()
        out.mul_(factor.to(out.dtype).view(-1, *(1,) * (out.ndim - 1)))

    def proven(self, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """Zero: a shift leaves the ball, and nothing is claimed about that."""
        return np.zeros_like(lower)

    def relative_to(self, first: GeneralGaussian) -> Inner:
        """This law beside `first`; ArgumentError where it is not cut from it."""
        if self.whole != first:
            raise ArgumentError(f"the second noise must be cut from the first, {first}, got {self}")
        return Inner(self._squared, self.mass)


def fitted_cut(first: GeneralGaussian, lower: float) -> Truncated:
    """The cut that Li et al. 2022 use where the top class has probability at least `lower` under `first`.

    mass = 0.6 + 0.08 (-ln(1 - lower) - 5), here kept within [0.1, 0.95]: the surer the class, the
    farther out are its errors. Any choice that depends on samples of `first` alone is sound.
    """
    mass = 0.6 + 0.08 * (-math.log(max(1.0 - lower, 1e-300)) - 5)
    return Truncated(first, min(max(mass, 0.1), 0.95))
