"""Noise: a random change of an input, with the radius that its smoothed classifier is proven for."""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from certus.core import ArgumentError

Probability = float | np.ndarray


class Noise(ABC):
    """A random change of an input, with its proof of robustness.

    A leaf is a frozen dataclass that gives `fill` (draws that do not depend on any input), `norm` (of
    the threat that the proof covers) and `proven` (the radius). None has a default: together they are
    what soundness rests on. `proven` must hold for the distribution of `fill` and `apply`, for every
    classifier. Noise that is not added to the input overrides `apply`, and `rows_shape` where a noisy
    copy has another shape than the input.
    """

    norm: ClassVar[str]
    additive: ClassVar[bool] = True  # a noisy copy is input + draw

    @abstractmethod
    def fill(self, out: Tensor, generator: torch.Generator) -> None:
        """Overwrite `out` [n, *shape of a draw] (contiguous, on the CPU) with independent draws."""

    @abstractmethod
    def proven(self, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """Radius where the top class has probability >= lower and every other one <= upper < lower.

        Both are float64 of one shape with 0 <= upper < lower <= 1 and upper <= 1 - lower; where upper
        is 1 - lower this is the one-sided radius. It must never fall with lower or rise with upper.
        """

    def check(self, x: Tensor) -> None:  # noqa: B027 (most noises take every input)
        """Refuse inputs [B, *shape] that the proof is not about (ArgumentError); none by default."""

    def draw_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one draw for an input of this shape; the same by default."""
        return shape

    def rows_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one noisy copy of an input of this shape; the same by default."""
        return shape

    def apply(self, x: Tensor, draws: Tensor, out: Tensor) -> Tensor:
        """Noisy copies [n, *rows_shape] of one input x [*shape], written to `out`; by default x + draws.

        `out` may be `draws` itself where the noise is additive.
        """
        return torch.add(draws, x, out=out)

    def sample(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draws in a new CPU tensor; shape is [n, *shape of an input]."""
        out = torch.empty((shape[0], *self.draw_shape(tuple(shape[1:]))), dtype=dtype)
        self.fill(out, generator)
        return out

    def radius(self, lower: Probability, upper: Probability | None = None) -> np.ndarray:
        """Certified radius, float64 in the shape of the bounds, in input units and `norm`.

        lower bounds the probability of the top class from below, upper that of every other class from
        above; None (or more than 1 - lower) means 1 - lower. 0 where lower does not exceed upper.
        Raises ArgumentError outside [0, 1] or at NaN.
        """
        low = np.asarray(lower, dtype=np.float64)
        rest = 1.0 - low
        high = rest if upper is None else np.asarray(upper, dtype=np.float64)
        low, high = np.broadcast_arrays(low, high)
        if not ((low >= 0) & (low <= 1) & (high >= 0) & (high <= 1)).all():
            raise ArgumentError("a probability must lie in [0, 1]")
        high = np.minimum(high, 1.0 - low)
        sure = low > high
        found = self.proven(np.where(sure, low, 0.75), np.where(sure, high, 0.25))
        return np.where(sure, found, 0.0)

    def threshold(self, radius: float) -> float:
        """The smallest probability (pB = 1 - pA) whose one-sided radius is at least `radius` > 0.

        Rounded up, so that `radius(threshold(r)) >= r`; 1 and above `1.0` (inf) where none is enough.
        """
        if not float(self.radius(1.0)) >= radius:
            return float("inf")
        low, high = 0.5, 1.0  # radius(low) < radius <= radius(high)
        while np.nextafter(low, 1.0) < high:
            middle = low + (high - low) / 2
            enough = float(self.radius(middle)) >= radius
            low, high = (low, middle) if enough else (middle, high)
        return high
