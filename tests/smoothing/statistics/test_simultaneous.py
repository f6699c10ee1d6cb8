"""Bounds of several classes: joint coverage on multinomials, and the mistakes next to them."""

import numpy as np
import pytest
from scipy.special import ndtri
from tests.smoothing.statistics.coverage import CLEAR, FINE, excess

from certus.core import ArgumentError
from certus.smoothing import Gaussian
from certus.smoothing.statistics import (
    against_all,
    bonferroni,
    goodman,
    lower_bound,
    upper_bound,
)

TRIALS = 10_000
SHAPES = {
    "equal": [0.1] * 10,
    "tail": [0.9] + [0.1 / 9] * 9,
    "three": [0.5, 0.3, 0.2],
    "two": [0.7, 0.3],
    "crowd": [0.3] + [0.14] * 5,
}


def draws(shape: str, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    p = np.array(SHAPES[shape])
    return p, np.random.default_rng(seed).multinomial(n, p, TRIALS)


@pytest.mark.parametrize("alpha", [0.2, 0.01])
@pytest.mark.parametrize("shape", ["equal", "three"])
def test_bonferroni_covers_all_classes(shape, alpha):
    p, counts = draws(shape, 80)
    low, high = bonferroni(counts, alpha)
    failures = int(((low > p) | (high < p)).any(1).sum())
    assert excess(failures, TRIALS, alpha) > FINE
    # The mistake: each class at alpha (half for either side) by itself.
    each = (lower_bound(counts, 80, alpha / 2) > p) | (upper_bound(counts, 80, alpha / 2) < p)
    if shape == "equal":
        assert excess(int(each.any(1).sum()), TRIALS, alpha) < CLEAR


def test_goodman_is_right_in_the_limit_only():
    """Near its level for many samples, far beyond it for rare classes."""
    p, counts = draws("three", 5000)
    low, high = goodman(counts, 0.1)
    failures = int(((low > p) | (high < p)).any(1).sum())
    assert 0.05 < failures / TRIALS < 0.11
    p, counts = draws("tail", 20)
    low, high = goodman(counts, 1e-3)
    assert excess(int(((low > p) | (high < p)).any(1).sum()), TRIALS, 1e-3) < CLEAR
    # Goodman 1965: roots of (q - c / n)^2 = A q (1 - q) / n
    low, high = goodman(np.array([30, 60, 10]), 0.05)
    for q in (low, high):
        left = (q - np.array([0.3, 0.6, 0.1])) ** 2
        assert left == pytest.approx(ndtri(1 - 0.05 / 6) ** 2 * q * (1 - q) / 100, rel=1e-9)


@pytest.mark.parametrize("alpha", [0.2, 0.01])
@pytest.mark.parametrize("n", [1, 100])
@pytest.mark.parametrize("shape", SHAPES)
def test_against_all_covers_the_chosen_and_every_other_class(shape, n, alpha):
    """Whichever class was chosen beforehand, at no cost for the number of classes."""
    p, counts = draws(shape, n)
    for chosen in (0, len(p) - 1):
        lower, upper = against_all(counts, chosen, alpha)
        wrong = (lower > p[chosen]) | (upper < np.delete(p, chosen).max())
        assert excess(int(wrong.sum()), TRIALS, alpha) > FINE
        assert (upper <= 1 - lower).all()
        # Not vacuous: where no other bound helps, half of alpha is used up.
        if (shape, n) == ("crowd", 100):
            assert excess(int(wrong.sum()), TRIALS, alpha / 8) < FINE


def test_a_runner_up_of_the_selection_samples_bounds_no_other_class():
    p, counts = draws("three", 200)
    few = np.random.default_rng(1).multinomial(10, p, TRIALS)
    chosen = few[:, 1:].argmax(1) + 1
    upper = upper_bound(np.take_along_axis(counts, chosen[:, None], 1)[:, 0], 200, 0.025)
    assert excess(int((upper < p[1:].max()).sum()), TRIALS, 0.05) < CLEAR


def test_a_class_chosen_on_the_same_samples_is_not_bounded():
    p, counts = draws("equal", 100)
    lower, _ = against_all(-np.sort(-counts, 1), 0, 0.05)
    assert excess(int((lower > p[0]).sum()), TRIALS, 0.05) < CLEAR
    # The empirical frequency is no bound either.
    assert excess(int((counts[:, 0] / 100 > p[0]).sum()), TRIALS, 0.05) < CLEAR


@pytest.mark.parametrize(
    ("top", "second", "one_sided", "two_sided"),
    [
        (0.9, 0.03, 1.265, 1.559),
        (0.7, 0.1, 0.512, 0.887),
        (0.6, 0.2, 0.241, 0.533),
        (0.5, 0.2, 0.0, 0.407),
        (0.45, 0.1, 0.0, 0.5625),
    ],
)
def test_published_radii(top, second, one_sided, two_sided):
    """n = 100,000 samples that fall as expected, alpha .001, sigma 1; whatever the other classes get."""
    n, noise = 100_000, Gaussian(1.0)
    counts = np.array([round(n * top), round(n * second)])
    counts = np.append(counts, np.full(9, (n - counts.sum()) // 9))
    counts[-1] += n - counts.sum()
    assert float(noise.radius(lower_bound(counts[0], n, 1e-3))) == pytest.approx(
        one_sided, abs=6e-4
    )
    assert float(noise.radius(*against_all(counts, 0, 1e-3))) == pytest.approx(two_sided, abs=6e-4)


def test_two_classes_spend_all_of_alpha_on_one_bound():
    lower, upper = against_all(np.array([70, 30]), 0, 0.01)
    assert lower == lower_bound(70, 100, 0.01)
    assert upper == 1 - lower


@pytest.mark.parametrize(
    "call",
    [
        lambda: bonferroni(np.array([1, -1]), 0.1),
        lambda: bonferroni(np.array([0, 0]), 0.1),
        lambda: bonferroni(np.array([3]), 0.1),
        lambda: bonferroni(np.array(3), 0.1),
        lambda: bonferroni(np.array([0.5, 2]), 0.1),
        lambda: bonferroni(np.array([1, 2]), 0.0),
        lambda: goodman(np.array([1, 2]), 1.0),
        lambda: against_all(np.array([1, 2]), 2, 0.1),
        lambda: against_all(np.array([1, 2]), -1, 0.1),
        lambda: against_all(np.array([1, 2, 3]), 0, 1.5),
    ],
)
def test_bad_arguments(call):
    with pytest.raises(ArgumentError):
        call()
