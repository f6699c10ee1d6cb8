"""Confidence sequences by betting: the stakes learn from the samples seen before each block.

Against "the probability is p" one bets on success with a stake l in [0, 1 / p): a success multiplies the
wealth by 1 + l (1 - p), a failure by 1 - l p, which is fair if p is true. Whatever the stakes, chosen
before the samples they are set on, the wealth ever reaches 1 / alpha with chance at most alpha
(Waudby-Smith and Ramdas 2021, theorem 3; for smoothing Voracek 2024). Unlike mixtures the wealth depends
on when one looked, not on the last counts alone.
"""

import numpy as np

from certus.core import ArgumentError, validate
from certus.smoothing.statistics.counts import binomial

_HALVINGS = 60
_CAP = 0.9  # of the stake 1 / p that one failure would ruin
_ROOM = 1e-12  # more than the rounding error of a log factor, for each sample


def betting_lower_bound(hits: np.ndarray, taken: np.ndarray, alpha: float) -> np.ndarray:
    """Lower bounds of a success probability at all looks [..., L]: all hold, with chance 1 - alpha.

    hits and taken [..., L] int64: successes and samples at each look, as they accumulated. The stake
    of a block follows from the counts before it: the predictable plug-in of Waudby-Smith and Ramdas,
    sqrt(2 log(1 / alpha) / (v t log(t + 1))), with v the variance so far and t the samples at the
    block's end, never above 0.9 / p. For a given stake the wealth falls with p, so what is out is an
    interval from 0. Bounds may fall from one look to the next; the largest so far holds too.
    Raises ArgumentError for alpha outside (0, 1) and for counts that do not accumulate.
    """
    target = -float(np.log(validate.probability(alpha, "alpha")))
    total, won, lost = _blocks(hits, taken)
    stakes = _stakes(total, won, target)
    # wealth[..., look, block]: what block adds to the log wealth at look, for that look's own p
    past = np.tril(np.ones((total.shape[-1],) * 2))

    def sound(p: np.ndarray) -> np.ndarray:
        column = p[..., None]
        bet = np.minimum(stakes[..., None, :], _CAP / column)
        gains = won[..., None, :] * np.log1p(bet * (1 - column))
        wealth = ((gains + lost[..., None, :] * np.log1p(-bet * column)) * past).sum(-1)
        return np.asarray(wealth - _ROOM * total >= target)

    low, high = np.zeros(total.shape), np.ones(total.shape)
    for _ in range(_HALVINGS):
        middle = low + (high - low) / 2
        out = sound(middle)
        low, high = np.where(out, middle, low), np.where(out, high, middle)
    return low


def betting_upper_bound(hits: np.ndarray, taken: np.ndarray, alpha: float) -> np.ndarray:
    """Upper bounds at all looks: one minus the lower bounds of the failures.

    Lower and upper bounds at alpha / 2 each are the hedged interval of Waudby-Smith and Ramdas.
    """
    below = betting_lower_bound(np.asarray(taken) - hits, taken, alpha)
    return np.minimum(1.0, np.nextafter(1.0 - below, 2.0))


def _blocks(hits: np.ndarray, taken: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples at each look, and successes and failures of each block between looks."""
    won, total = binomial(hits, taken)
    if total.ndim == 0:
        raise ArgumentError("hits and taken must be [..., L], one entry for each look")
    won, lost = np.diff(won, prepend=0), np.diff(total - won, prepend=0)
    if (won < 0).any() or (lost < 0).any():
        raise ArgumentError("counts must accumulate from look to look")
    return total, won, lost


def _stakes(total: np.ndarray, won: np.ndarray, target: float) -> np.ndarray:
    """The stake on each block, from the blocks before it (one success and one failure stand for none)."""
    before = np.concatenate([np.zeros_like(total[..., :1]), total[..., :-1]], -1)
    rate = (np.cumsum(won, -1) - won + 1) / (before + 2)
    return np.sqrt(2 * target / (rate * (1 - rate) * total * np.log1p(total)))
