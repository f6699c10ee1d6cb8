"""Votes: how many copies may change their class before the prediction changes."""

import numpy as np


def votes_to_spare(counts: np.ndarray) -> np.ndarray:
    """The most copies that may change while the winner stays the winner, [B] int64.

    counts [B, K] int64; the winner is the class of most copies, of the smallest index in a tie. Each
    changed copy takes one vote from the winner and gives one to its rival, so the answer is
    floor((n_A - n_c - [c < A]) / 2) for the strongest rival c, whose win in a tie at c < A is one
    more vote.
    """
    rows = np.arange(len(counts))
    winner = counts.argmax(1)
    ahead = np.arange(counts.shape[1]) < winner[:, None]
    rivals = counts + ahead
    rivals[rows, winner] = -1  # never the strongest: there are at least two classes
    return (counts[rows, winner] - rivals.max(1)) // 2
