"""Rule: how many samples to take, and what their counts prove."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np

from certus.core import ArgumentError
from certus.core.validate import count, probability
from certus.smoothing.noise import Noise


@dataclass(frozen=True, eq=False)
class Path:
    """The estimation samples of one input so far, as they stood at every look.

    taken [L] int64: samples at each look, ascending. counts [L, K] int64: how often each class had won
    by then. chosen: the class that the selection samples (others than these) chose. uniform: one draw
    from [0, 1) of this input's own that nothing else uses, for randomized bounds.
    """

    taken: np.ndarray
    counts: np.ndarray
    chosen: int
    uniform: float

    @property
    def hits(self) -> np.ndarray:
        """How often the chosen class had won at each look, [L]."""
        return self.counts[:, self.chosen]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the samples prove, with chance at most alpha to be wrong.

    lower bounds the probability of the chosen class from below, upper every other class's from above.
    look: after how many samples the counts were taken that the bounds rest on, None for the last look.
    """

    lower: float
    upper: float
    look: int | None = None

    @classmethod
    def one_sided(cls, lower: float) -> "Judgement":
        """All that is not the chosen class may be one other class."""
        return cls(lower=lower, upper=1.0 - lower)

    @classmethod
    def largest(cls, lower: np.ndarray, taken: np.ndarray) -> "Judgement":
        """One-sided, by the largest of the bounds [L] of all looks, the last of equal ones."""
        place = len(lower) - 1 - int(lower[::-1].argmax())
        best = float(lower[place])
        return cls(lower=best, upper=1.0 - best, look=int(taken[place]))


@dataclass(frozen=True, kw_only=True)
class Rule(ABC):
    """n0 samples choose a class, at most n fresh ones bound its probability; a rule says when to stop.

    The claim of a judgement must hold with chance at least 1 - alpha for every order of looks at which
    the rule may stop: a rule that looks more than once needs bounds that are valid at all looks.
    """

    n0: int = 100
    n: int = 100_000

    def __post_init__(self) -> None:
        """Refuse counts that are no counts, and n0 > n."""
        if count(self.n0, "n0") > count(self.n, "n"):
            raise ArgumentError(
                f"n0 ({self.n0}) must not exceed n ({self.n}): n0 only chooses the class"
            )

    @abstractmethod
    def looks(self) -> tuple[int, ...]:
        """Numbers of samples after which `judge` is asked, ascending; the last is n."""

    @abstractmethod
    def _judge(self, path: Path, noise: Noise, alpha: float) -> Judgement | None:
        """What `judge` answers, for valid arguments."""

    @final
    def judge(self, path: Path, noise: Noise, alpha: float) -> Judgement | None:
        """What the samples so far prove; None to go on, which the last look (n samples) never answers."""
        found = self._judge(path, noise, probability(alpha, "alpha"))
        assert found is not None or path.taken[-1] < self.n, "the last look must end it"
        return found
