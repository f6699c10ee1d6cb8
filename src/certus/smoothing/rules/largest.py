"""The largest radius that n samples prove, without those that can no longer matter."""

from dataclasses import dataclass, replace

from certus.smoothing.noise import Noise
from certus.smoothing.rules.base import Judgement, Path
from certus.smoothing.rules.schedule import late
from certus.smoothing.rules.two_sided import TwoSided


@dataclass(frozen=True, kw_only=True)
class Largest(TwoSided):
    """`TwoSided`, stopped where it would certify nothing even if all samples to come were hits.

    The answer is always that of `TwoSided` with all n samples, so that stopping costs nothing of
    alpha. A judgement that stops early proves nothing (bounds 0 and 1).
    """

    def looks(self) -> tuple[int, ...]:
        """Evenly spaced in the second half: before it no input can be given up."""
        return late(self.n)

    def _judge(self, path: Path, noise: Noise, alpha: float) -> Judgement | None:
        left = self.n - int(path.taken[-1])
        counts = path.counts[-1:].copy()
        counts[0, path.chosen] += left
        best = super()._judge(replace(path, counts=counts), noise, alpha)
        assert best is not None
        if not left:
            return best
        hope = bool(noise.radius(best.lower, best.upper) > 0)
        return None if hope else Judgement(lower=0.0, upper=1.0)
