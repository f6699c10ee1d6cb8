"""Simulated certifications: multinomial counts at a rule's looks, judged as an engine would."""

import numpy as np

from certus.smoothing.noise import Noise
from certus.smoothing.rules import Judgement, Path, Rule

Found = tuple[Judgement, int]  # what was judged, after how many samples


def sample(rule: Rule, path: np.ndarray, noise: Noise, alpha: float, uniform: float = 0.5) -> Found:
    """Judgement of class 0 on counts [L, K] at all looks, and the samples it took."""
    looks = np.array(rule.looks())
    for at in range(1, len(looks) + 1):
        found = rule.judge(Path(looks[:at], path[:at], 0, uniform), noise, alpha)
        if found is not None:
            return found, int(looks[at - 1])
    raise AssertionError("the last look must end it")


def certify(
    rule: Rule, p: list[float], noise: Noise, alpha: float, trials: int = 10_000
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower bounds, upper bounds and numbers of samples of so many certifications of class 0.

    Equal paths are judged once.
    """
    rng = np.random.default_rng(7)
    steps = np.diff(rule.looks(), prepend=0)
    counts = np.cumsum(np.stack([rng.multinomial(s, p, trials) for s in steps], 1), 1)
    rows, back = np.unique(counts.reshape(trials, -1), axis=0, return_inverse=True)
    found = [sample(rule, row.reshape(len(steps), len(p)), noise, alpha) for row in rows]
    table = np.array([(f.lower, f.upper, taken) for f, taken in found])[back]
    return table[:, 0], table[:, 1], table[:, 2]
