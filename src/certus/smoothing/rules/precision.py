"""Find the certified radius to a given precision, with the samples that this takes."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import betaln

from certus.core.validate import positive
from certus.smoothing.noise import Noise
from certus.smoothing.rules.base import Judgement, Path, Rule
from certus.smoothing.rules.schedule import growing
from certus.smoothing.statistics import anytime_interval


@dataclass(frozen=True, kw_only=True)
class Precision(Rule):
    """Which radius does the chosen class's probability give, to within `width` (> 0, input units)?

    Stops as soon as the radii of an anytime-valid lower and upper bound differ by at most `width`, so
    also where the upper one is 0. Both hold together at all looks with chance 1 - alpha. Certifies the
    lower radius; the one-sided radius of the true probability is larger by at most `width`, unless n
    ran out first, which it does where every sample hits and the radius of probability 1 is infinite.
    """

    width: float

    def __post_init__(self) -> None:
        """Refuse a width that is not a finite number above zero."""
        super().__post_init__()
        positive(self.width, "width")

    def looks(self) -> tuple[int, ...]:
        """An eighth apart or closer."""
        return growing(self.n)

    def _judge(self, path: Path, noise: Noise, alpha: float) -> Judgement | None:
        hits, taken = path.hits[-1], int(path.taken[-1])
        if taken < self.n:
            for bounds in (_surely_inside(int(hits), taken, alpha), None):
                ends = anytime_interval(hits, taken, alpha) if bounds is None else bounds
                low, high = noise.radius(np.stack(ends))
                if not low + self.width >= high:
                    return None
        lower, _ = anytime_interval(path.hits, path.taken, alpha)
        return Judgement.largest(lower, path.taken)


def _surely_inside(hits: int, taken: int, alpha: float) -> tuple[float, float]:
    """Two probabilities inside the interval, found faster than its ends: they may show it too wide."""
    rate, misses, need = hits / taken, taken - hits, -math.log(alpha)
    constant = float(betaln(hits + 0.5, misses + 0.5) - betaln(0.5, 0.5))
    spread = math.sqrt((2 * need + math.log(taken)) * rate * (1 - rate) / taken)

    def inside(p: float) -> bool:
        return 0 < p < 1 and constant - hits * math.log(p) - misses * math.log1p(-p) < need

    low, high = (
        next(filter(inside, (rate + part * spread for part in parts)), rate)
        for parts in ((-1.05, -0.95, -0.8), (1.05, 0.95, 0.8))
    )
    return low, high
