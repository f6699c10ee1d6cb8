"""PREDICT at any time: wrong with chance at most alpha, whenever one looks."""

import numpy as np
import pytest
from tests.smoothing.statistics.coverage import CLEAR, FINE, excess

from certus.core import ArgumentError
from certus.smoothing.statistics import agreement_p_value, settled


def running(p: list[float], trials: int, looks: int, step: int) -> np.ndarray:
    """Counts after each `step` samples, [trials, looks, K]."""
    return np.cumsum(np.random.default_rng(2).multinomial(step, p, (trials, looks)), 1)


@pytest.mark.parametrize("p", [[0.5, 0.5], [0.34, 0.33, 0.33], [0.24, 0.2, 0.2, 0.18, 0.18]])
def test_no_look_names_a_wrong_class_too_often(p):
    """On a tie of two classes every answer but one counts as wrong."""
    trials, alpha = 10_000, 0.1
    counts = running(p, trials, 20, 6)
    answers = settled(counts, alpha)
    assert excess(int((answers > 0).any(1).sum()), trials, alpha) > FINE
    two = np.sort(counts, -1)
    repeated = agreement_p_value(two[..., -1], two[..., -2]) <= alpha
    mistaken = repeated & (counts.argmax(-1) > 0)
    if len(p) == 2:
        assert excess(int(mistaken.any(1).sum()), trials, alpha) < CLEAR


def test_it_settles_soon_where_the_answer_is_clear():
    counts = running([0.8, 0.1, 0.1], 500, 100, 1)
    answers = settled(counts, 1e-3)
    assert (answers[:, -1] == 0).mean() > 0.99
    first = (answers >= 0).argmax(1)
    assert np.median(first) < 40
    assert (answers[:, 0] == -1).all()  # one sample settles nothing
    assert settled(np.array([40, 0]), 1e-3) == 0
    assert settled(np.array([0, 2, 60]), 1e-3) == 2
    assert settled(np.array([20, 20]), 0.4) == -1
    assert answers.dtype == np.int64


@pytest.mark.parametrize("classes", [3, 5, 10])
def test_alpha_is_shared_by_all_wrong_leaders(classes):
    """Where only two classes were met, the answer is theirs at alpha / (K - 1)."""
    leader = np.arange(1, 60)
    pairs = np.stack([leader, np.full_like(leader, 3)], -1)
    every = np.concatenate([pairs, np.zeros((len(pairs), classes - 2), dtype=np.int64)], -1)
    found = settled(every, 0.01)
    assert (found == settled(pairs, 0.01 / (classes - 1))).all()
    assert (found != settled(pairs, 0.01)).any()


@pytest.mark.parametrize(
    ("counts", "alpha"), [([3], 0.1), ([0, 0], 0.1), ([1, -1], 0.1), ([1, 2], 1.0)]
)
def test_bad_arguments(counts, alpha):
    with pytest.raises(ArgumentError):
        settled(np.array(counts), alpha)
