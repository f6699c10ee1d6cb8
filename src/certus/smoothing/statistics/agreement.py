"""PREDICT at any time: which class is the most probable one, as soon as the samples settle it."""

import numpy as np

from certus.core import validate
from certus.smoothing.statistics.counts import classes
from certus.smoothing.statistics.sequence import log_evidence


def settled(counts: np.ndarray, alpha: float) -> np.ndarray:
    """The class that is settled to be the most probable one, -1 where the samples do not settle it.

    counts [..., K] int64 of the samples so far; the answer is int64 [...]. Asked after any numbers of
    samples, at any times, an answer other than -1 is ever wrong with chance at most alpha. Samples
    that fall on one of two classes are a sequence of their own, in which "the leader is not more
    probable than the other" is tested by `log_evidence` at 1/2; a wrong leader is one of K - 1, and
    each spends alpha / (K - 1) (Jain et al. 2022, PPR-1v1). Only the runner-up needs the test: the
    evidence against the others is larger. Raises ArgumentError for counts < 0 or all 0, K < 2.
    """
    tally = classes(counts)
    share = validate.probability(alpha, "alpha") / (tally.shape[-1] - 1)
    order = np.sort(tally, -1)
    leader, second = order[..., -1], order[..., -2]
    sure = log_evidence(leader, leader + second, 0.5) >= -np.log(share)
    return np.where(sure, tally.argmax(-1), -1)
