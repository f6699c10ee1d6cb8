"""Noise distributions, each with the radius that its smoothed classifier is proven for."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from certus.core import ArgumentError, validate


class Noise(ABC):
    """Noise that is added to an input, with its proof of robustness.

    A leaf is a frozen dataclass that gives `fill` (the distribution), `norm` (of the threat that
    the proof covers) and `proven` (the radius). None has a default: together they are what
    soundness rests on. `proven` must hold for the distribution of `fill`, for every classifier.
    """

    norm: ClassVar[str]

    @abstractmethod
    def fill(self, out: Tensor, generator: torch.Generator) -> None:
        """Overwrite `out` (contiguous, on the CPU) with independent draws of the noise."""

    @abstractmethod
    def proven(self, probability: np.ndarray) -> np.ndarray:
        """Radius for classes of probability at least `probability`, in (1/2, 1], under noise."""

    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draws of the noise in a new CPU tensor of this shape and dtype."""
        out = torch.empty(shape, dtype=dtype)
        self.fill(out, generator)
        return out

    def radius(self, probability: float | np.ndarray) -> np.ndarray:
        """Certified radius, float64 in the shape of `probability`, in input units and `norm`.

        `probability` is a lower bound of the probability pA of the top class; the runner-up is
        taken at 1 - pA, so the radius is 0 where pA <= 1/2. Raises ArgumentError outside [0, 1] or
        at NaN.
        """
        value = np.asarray(probability, dtype=np.float64)
        if not ((value >= 0) & (value <= 1)).all():
            raise ArgumentError("a probability must lie in [0, 1]")
        majority = value > 0.5
        return np.where(majority, self.proven(np.where(majority, value, 0.75)), 0.0)


@dataclass(frozen=True)
class Gaussian(Noise):
    """Independent normal noise of standard deviation sigma > 0 (input units) on every input value.

    Certifies the L2 radius sigma * Phi^-1(pA), which is tight for pB = 1 - pA (Cohen, Rosenfeld
    and Kolter 2019, theorem 1). The proof is about real-valued noise; floating-point draws stand
    for it.
    """

    sigma: float
    norm: ClassVar[str] = "l2"

    def __post_init__(self) -> None:
        """Refuse a sigma that is not a finite number above zero."""
        validate.positive(self.sigma, "sigma")

    def fill(self, out: Tensor, generator: torch.Generator) -> None:
        """Normal draws of mean 0 and standard deviation sigma."""
        out.normal_(0.0, self.sigma, generator=generator)

    def proven(self, probability: np.ndarray) -> np.ndarray:
        """Sigma times the normal quantile."""
        return self.sigma * ndtri(probability)
