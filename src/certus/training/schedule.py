"""Schedules: what eps, kappa, beta and the learning rate are at each moment of a training.

Time runs from 0 (start) to 1 (end), so that a schedule does not depend on epochs or batch size.
"""

import math
from dataclasses import dataclass
from numbers import Real
from typing import Protocol

from certus.core import ArgumentError


class Schedule(Protocol):
    """A value for every time in [0, 1]."""

    def __call__(self, time: float) -> float:
        """The value at this time."""


@dataclass(frozen=True)
class Constant:
    """The same value all the time. Raises ArgumentError unless it is a finite number."""

    value: float

    def __post_init__(self) -> None:
        _finite(self.value)

    def __call__(self, time: float) -> float:
        """The value."""
        return self.value


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """`low` until time `begin` (the warm-up), then to `high`, which holds from time `end` on.

    smooth: slow at both ends (3t^2 - 2t^3) instead of linear; then the ramp leaves a loss that was
    trained at eps 0 without a jolt. low may exceed high. Raises ArgumentError for times out of order.
    """

    low: float
    high: float
    begin: float = 0.0
    end: float = 1.0
    smooth: bool = False

    def __post_init__(self) -> None:
        _finite(self.low, self.high, self.begin, self.end)
        if not 0 <= self.begin < self.end <= 1:
            raise ArgumentError(
                f"a ramp needs 0 <= begin < end <= 1, got {self.begin!r} and {self.end!r}"
            )

    def __call__(self, time: float) -> float:
        """The value; exactly `low` before and `high` after the ramp."""
        if time <= self.begin:
            return self.low
        if time >= self.end:
            return self.high
        part = (time - self.begin) / (self.end - self.begin)
        if self.smooth:
            part = part * part * (3 - 2 * part)
        return self.low + (self.high - self.low) * part


@dataclass(frozen=True, kw_only=True)
class StepDecay:
    """`rate`, times `factor` from each of the times `at` on."""

    rate: float
    at: tuple[float, ...] = (0.8, 0.92)
    factor: float = 0.2

    def __post_init__(self) -> None:
        if not isinstance(self.at, tuple | list):
            raise ArgumentError(f"`at` must hold times such as (0.8, 0.92), got {self.at!r}")
        _finite(self.rate, self.factor, *self.at)
        if self.rate <= 0 or self.factor <= 0:
            raise ArgumentError(f"rate and factor must be > 0, got {self.rate} and {self.factor}")

    def __call__(self, time: float) -> float:
        """The rate after the decays so far."""
        return self.rate * self.factor ** sum(time >= moment for moment in self.at)


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """`rate` until time `begin`, then down a half cosine to `last` at time 1."""

    rate: float
    last: float = 0.0
    begin: float = 0.0

    def __post_init__(self) -> None:
        _finite(self.rate, self.last, self.begin)
        if self.rate <= 0 or self.last < 0 or not 0 <= self.begin < 1:
            raise ArgumentError(
                f"a cosine needs rate > 0, last >= 0 and 0 <= begin < 1, got {self}"
            )

    def __call__(self, time: float) -> float:
        """The rate."""
        part = min(1.0, max(0.0, (time - self.begin) / (1 - self.begin)))
        return self.last + (self.rate - self.last) * (1 + math.cos(math.pi * part)) / 2


def _finite(*values: float) -> None:
    for value in values:
        if not is_number(value) or not math.isfinite(value):
            raise ArgumentError(f"a schedule needs finite numbers, got {value!r}")


def is_number(value: object) -> bool:
    """Whether a value is a real number, of Python or of numpy, and no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool)
