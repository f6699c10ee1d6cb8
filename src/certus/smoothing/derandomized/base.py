"""Derandomized smoothing: all of finitely many noisy copies are evaluated, nothing is left to chance."""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from torch import Tensor


class Derandomized(ABC):
    """A finite set of copies of an input; g(x) is the class that most of them get.

    A leaf is a frozen dataclass. Ties go to the class of the smaller index. Certificates are proofs
    (confidence 1) about g, given the class that the module gives to each copy.
    """

    norm: ClassVar[str]

    @abstractmethod
    def copies(self, shape: tuple[int, ...]) -> int:
        """How many copies an input of this shape has."""

    @abstractmethod
    def rows_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one copy."""

    @abstractmethod
    def rows(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Copies number start to stop - 1 of one input x [*shape]: [stop - start, *rows_shape]."""

    @abstractmethod
    def proven(self, counts: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Certified radius [B] (float64, in `norm`, NaN-free, 0 where nothing is certified).

        counts [B, K] int64: how many copies got each class; the prediction is `counts.argmax(1)`.
        """

    def check(self, x: Tensor) -> None:  # noqa: B027 (most sets take every input)
        """Refuse inputs [B, *shape] that the proof is not about (ArgumentError); none by default."""
