"""Certify at one radius, with the samples that this takes and no more."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from certus.core import ArgumentError
from certus.core.validate import positive
from certus.smoothing.noise import Noise
from certus.smoothing.rules.base import Judgement, Path, Rule
from certus.smoothing.rules.schedule import growing
from certus.smoothing.statistics import anytime_lower_bound, log_evidence


@dataclass(frozen=True, kw_only=True)
class AtRadius(Rule):
    """Is the certified radius at least `radius` (> 0, in the noise's norm and input units)?

    Stops as soon as an anytime-valid bound certifies it, as soon as one shows that the chosen class is
    not probable enough, or as soon as hits alone up to n would not suffice. The first gives a radius
    of at least `radius`; the others the largest bound at any look. All of alpha goes to the lower
    bound, which holds at all looks together; the test that gives up also has level alpha, and its
    mistakes only lose a certificate. One-sided: all other classes count as one.
    Judging raises ArgumentError where no probability below 1 certifies `radius` under the noise.
    """

    radius: float

    def __post_init__(self) -> None:
        """Refuse a radius that is not a finite number above zero."""
        super().__post_init__()
        positive(self.radius, "radius")

    def looks(self) -> tuple[int, ...]:
        """An eighth apart or closer."""
        return growing(self.n)

    def _judge(self, path: Path, noise: Noise, alpha: float) -> Judgement | None:
        bar = _needed(noise, self.radius)
        hits, taken = int(path.hits[-1]), int(path.taken[-1])
        enough, few = _limits(self.n, bar, alpha)[taken]
        if hits >= enough:
            # the evidence is against every probability up to the bar, so rounding must not lose it
            return Judgement.one_sided(max(bar, float(anytime_lower_bound(hits, taken, alpha))))
        if taken < self.n and hits > few:
            return None
        return Judgement.largest(anytime_lower_bound(path.hits, path.taken, alpha), path.taken)


@lru_cache(maxsize=64)
def _needed(noise: Noise, radius: float) -> float:
    """The probability that the chosen class must exceed; it takes a bisection to find."""
    bar = noise.threshold(radius)
    if not bar < 1.0:
        raise ArgumentError(
            f"no number of samples certifies radius {radius:g} under {noise!r:.200}; ask for a "
            "smaller radius or take more noise"
        )
    return bar


@lru_cache(maxsize=64)
def _limits(n: int, bar: float, alpha: float) -> dict[int, tuple[int, int]]:
    """For each look: from how many hits on it is certified, and up to how many it is given up."""
    at = np.array(growing(n))
    need = -np.log(alpha)
    enough = _least(lambda k: log_evidence(k, at, bar) >= need, at)
    open_ = _least(
        lambda k: (
            (log_evidence(at - k, at, 1.0 - bar) < need)
            & (log_evidence(k + (n - at), n, bar) >= need)
        ),
        at,
    )
    return {int(t): (int(a), int(b) - 1) for t, a, b in zip(at, enough, open_, strict=True)}


def _least(holds: Callable[[np.ndarray], np.ndarray], most: np.ndarray) -> np.ndarray:
    """The smallest k in 0..most from which on `holds`; most + 1 where it does for none."""
    low, high = np.zeros_like(most), most + 1
    while (low < high).any():
        middle = (low + high) // 2
        true = holds(np.minimum(middle, most)) & (middle <= most)
        low, high = np.where(true | (low >= high), low, middle + 1), np.where(true, middle, high)
    return high
