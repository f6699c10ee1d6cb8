"""A fixed number of samples, with a bound of exact level."""

from dataclasses import dataclass

import numpy as np

from certus.smoothing.noise import Noise
from certus.smoothing.rules.base import Judgement, Path
from certus.smoothing.rules.fixed import Fixed
from certus.smoothing.statistics import randomized_lower_bound


@dataclass(frozen=True, kw_only=True)
class FixedRandomized(Fixed):
    """n samples, one look, one-sided randomized Clopper-Pearson: never below `Fixed`, mostly above.

    The input's own uniform draw enters the bound (Stevens 1950; Voracek 2024), so the same counts with
    another seed give another radius. A draw below sqrt(alpha) counts as sqrt(alpha): where all samples
    hit, the exact bound would be 1, an infinite radius, with chance alpha. The guarantee is that of
    `Fixed`; it needs a seed that nobody chose for its radii.
    """

    def _judge(self, path: Path, noise: Noise, alpha: float) -> Judgement | None:
        # 1 - uniform lies in (0, 1] and, being rounded to a grid, is never too small.
        draw = max(1.0 - path.uniform, float(np.sqrt(alpha)))
        return Judgement.one_sided(
            float(randomized_lower_bound(path.hits[-1], self.n, alpha, draw))
        )
