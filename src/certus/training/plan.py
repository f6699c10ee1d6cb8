"""Plan: how long and how fast to train, checked before anything happens."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from certus.core import ArgumentError
from certus.core.validate import count, positive
from certus.training.schedule import Constant, Cosine, Schedule, is_number

_RANGE: Mapping[str, tuple[float, float]] = {
    "rate": (0.0, 1e30),  # a step from finite weights then ends at finite weights
    "eps": (0.0, math.inf),
    "kappa": (0.0, 1.0),
    "beta": (0.0, 1.0),
}
_TIMES = 64  # at which schedules are looked at beforehand; each step looks again


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and how fast to train; the times of all schedules are fractions of the training.

    batch: wanted size; an epoch is cut into equal batches of about it. clip: range of valid inputs.
    gradient_norm: longer gradients are shortened to it. momentum: of every batch normalisation; None
    takes each layer's own. rate and eps are at least 0, kappa and beta in [0, 1] at all times.
    Raises ArgumentError for a setting outside its range, and for a number in place of a schedule.
    """

    epochs: int
    batch: int
    rate: Schedule = field(default_factory=lambda: Cosine(rate=1e-3))
    eps: Schedule = field(default_factory=lambda: Constant(0.0))
    kappa: Schedule = field(default_factory=lambda: Constant(1.0))
    beta: Schedule = field(default_factory=lambda: Constant(0.0))
    clip: tuple[float, float] = (0.0, 1.0)
    gradient_norm: float = 10.0
    momentum: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        count(self.epochs, "epochs")
        count(self.batch, "batch", least=2)
        count(self.seed, "seed", least=0)
        positive(self.gradient_norm, "gradient_norm")
        if self.momentum is not None and not (is_number(self.momentum) and 0 <= self.momentum <= 1):
            raise ArgumentError(f"momentum must lie in [0, 1] or be None, got {self.momentum!r}")
        pair = isinstance(self.clip, tuple | list) and len(self.clip) == 2
        if not (pair and all(map(is_number, self.clip)) and self.clip[0] < self.clip[1]):
            raise ArgumentError(f"clip must be (low, high) with low < high, got {self.clip!r}")
        for name in _RANGE:
            schedule = getattr(self, name)
            if isinstance(schedule, type) or not callable(schedule):
                raise ArgumentError(
                    f"{name} must be a schedule such as Constant(0.1) or Ramp(...), got {schedule!r}"
                )
            for step in range(_TIMES + 1):
                self.at(name, step / _TIMES)

    def at(self, name: str, time: float) -> float:
        """The value of the schedule `name` at a time in [0, 1]. ArgumentError outside its range."""
        low, high = _RANGE[name]
        try:
            value = getattr(self, name)(time)
        except TypeError as error:
            raise ArgumentError(
                f"{name} cannot be called with a time in [0, 1]: {error}"
            ) from error
        if not (is_number(value) and low <= value <= high and value < math.inf):
            wanted = f"in [{low:g}, {high:g}]" if high < math.inf else f"a finite number >= {low:g}"
            raise ArgumentError(
                f"{name} must be {wanted} at all times, got {value!r} at {time:.3g}"
            )
        return float(value)
