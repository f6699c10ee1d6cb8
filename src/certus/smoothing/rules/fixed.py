"""The fixed number of samples of Cohen et al. 2019."""

from dataclasses import dataclass

from certus.smoothing.noise import Noise
from certus.smoothing.rules.base import Judgement, Path, Rule
from certus.smoothing.statistics import lower_bound


@dataclass(frozen=True, kw_only=True)
class Fixed(Rule):
    """n samples, one look, one-sided Clopper-Pearson (Cohen, Rosenfeld and Kolter 2019, CERTIFY)."""

    def looks(self) -> tuple[int, ...]:
        """Only the last."""
        return (self.n,)

    def _judge(self, path: Path, noise: Noise, alpha: float) -> Judgement | None:
        return Judgement.one_sided(float(lower_bound(path.hits[-1], self.n, alpha)))
