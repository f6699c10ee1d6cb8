"""Classifiers that are tables: every copy of an input gets a class of its own, favoured or at random."""

import random

import numpy as np
from torch import Tensor


class Table:
    """Each new row gets the class `favoured` with chance `favour`, else any of `classes`.

    Equal rows get one class for good; `certain` stands for a chance of 1. Who asks for the copies of
    one input first and then favours a rival has the worst classifier for that input: every copy that
    a change reaches goes to the rival.
    """

    def __init__(self, seed: int, classes: int = 3, favour: float = 0.8) -> None:
        self._random, self._known = random.Random(seed), {}
        self._classes, self._favour = classes, favour
        self.favoured, self.certain = 0, False

    def __call__(self, rows: Tensor) -> list[int]:
        """The classes of rows [n, *shape]."""
        return [self._of(row.numpy().tobytes()) for row in rows]

    def _of(self, key: bytes) -> int:
        if key not in self._known:
            favoured = self.certain or self._random.random() < self._favour
            self._known[key] = self.favoured if favoured else self._random.randrange(self._classes)
        return self._known[key]


def keeps(shares: np.ndarray, wide: float = 1e-9) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For shares [N, K] of the classes at N inputs: (largest, second, holds).

    largest and second are bounds [N] of the two largest shares that allow for rounding. holds [N, N]
    tells where the winner at one input is strictly ahead at another.
    """
    order = shares.argsort(1)
    winner = order[:, -1]
    rest = np.repeat(shares[None], len(shares), 0)  # [at, other, K]
    own = np.take_along_axis(rest, winner[:, None, None].repeat(len(shares), 1), 2)[..., 0]
    np.put_along_axis(rest, winner[:, None, None].repeat(len(shares), 1), -1.0, 2)
    rows = np.arange(len(shares))
    largest, second = shares[rows, winner] - wide, shares[rows, order[:, -2]] + wide
    return largest.clip(0, 1), second.clip(0, 1), own > rest.max(2)


def changes(points: np.ndarray) -> np.ndarray:
    """In how many values each two of the points [N, d] differ, [N, N]."""
    return (points[:, None] != points[None]).sum(2)
