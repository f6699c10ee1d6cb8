"""Statistical guarantees on classifiers whose probabilities are known, and the usual mistakes.

Rates are judged by exact binomial tests: `excess` is the chance of at least so many failures if the
promised rate alpha held. A sound method must not be refuted, a mistaken one must be, clearly.
"""

import numpy as np
import pytest
import torch
from scipy.special import bdtrc, ndtr
from torch import Tensor

from certus.core import Verdict
from certus.smoothing import Gaussian, Smoothed, lower_bound
from certus.smoothing.smoothed import ESTIMATE, SELECT

ALPHA = 0.05
FINE, CLEAR = 1e-4, 1e-12


def excess(failures: int, trials: int, rate: float) -> float:
    return float(bdtrc(failures - 1, trials, rate)) if failures else 1.0


def linear(direction: Tensor, bias: float = 0.0):
    """Class 1 where <direction, z> + bias > 0."""

    def module(z: Tensor) -> Tensor:
        score = z.flatten(1) @ direction + bias
        return torch.stack([-score, score], 1)

    return module


def uniform(classes: int):
    """Every class has probability 1 / classes under noise, to many digits, at every input."""

    def module(z: Tensor) -> Tensor:
        sector = ((z[:, 0] * 50).frac().add(1).frac() * classes).long().clamp(max=classes - 1)
        return torch.nn.functional.one_hot(sector, classes).float()

    return module


@pytest.mark.parametrize("p", [0.6, 0.95])
def test_certify_fails_no_more_often_than_alpha(p):
    """Each id is an independent trial at the same input, at a known distance from the boundary."""
    trials, sigma = 2000, 0.5
    distance = sigma * float(torch.special.ndtri(torch.tensor(p, dtype=torch.float64)))
    x = torch.full((trials, 1), distance, dtype=torch.float64)
    smoothed = Smoothed(linear(torch.ones(1, dtype=torch.float64)), Gaussian(sigma), 2, seed=1)
    result = smoothed.certify(x, n0=100, n=200, alpha=ALPHA)
    wrong = (result.prediction == 0) | (result.radius > distance)
    assert excess(int(wrong.sum()), trials, ALPHA) > FINE
    # Not vacuous: with far fewer failures than alpha allows, radii would be needlessly small.
    assert int(wrong.sum()) > trials * ALPHA / 4

    # Mistake 1: the empirical frequency instead of a lower bound.
    counts = smoothed.counts(x, 200, stage=ESTIMATE)[:, 1].double().numpy() / 200
    mistaken = Gaussian(sigma).radius(np.minimum(counts, 1 - 1e-9)) > distance
    assert excess(int(mistaken.sum()), trials, ALPHA) < CLEAR


def test_choosing_and_bounding_on_the_same_samples_is_a_mistake():
    """On the boundary of two classes no radius is true; mistake 2 certifies one twice as often."""
    trials, n = 3000, 100
    x = torch.zeros(trials, 1)
    smoothed = Smoothed(uniform(2), Gaussian(1.0), 2, seed=2)
    ours = smoothed.certify(x, n0=n, n=n, alpha=ALPHA).certified
    assert excess(int(ours.sum()), trials, ALPHA) > FINE
    top = smoothed.counts(x, n, stage=ESTIMATE).amax(1).numpy()
    mistaken = Gaussian(1.0).radius(lower_bound(top, n, ALPHA)) > 0
    assert excess(int(mistaken.sum()), trials, ALPHA) < CLEAR


def test_the_bound_of_the_chosen_class_holds_with_many_classes():
    """Ten equally likely classes: the top count of the estimation samples is far from fair."""
    trials, n, classes = 2000, 100, 10
    x = torch.zeros(trials, 1)
    smoothed = Smoothed(uniform(classes), Gaussian(1.0), classes, seed=3)
    everything = smoothed.counts(x, n, stage=ESTIMATE)
    frequency = everything.sum(0).double() / everything.sum()
    assert float((frequency - 1 / classes).abs().max()) < 0.005  # the premise
    result = smoothed.certify(x, n0=n, n=n, alpha=ALPHA)
    ours = sum(record["probability"] > 1 / classes for record in result.evidence)
    assert excess(ours, trials, ALPHA) > FINE
    mistaken = int((lower_bound(everything.amax(1).numpy(), n, ALPHA) > 1 / classes).sum())
    assert excess(mistaken, trials, ALPHA) < CLEAR


def test_selection_and_estimation_samples_are_independent():
    """The same samples in both stages would give equal counts; here they do not correlate."""
    x = torch.zeros(500, 1)
    smoothed = Smoothed(uniform(2), Gaussian(1.0), 2)
    first = smoothed.counts(x, 100, stage=SELECT)[:, 0].double()
    second = smoothed.counts(x, 100, stage=ESTIMATE)[:, 0].double()
    correlation = torch.corrcoef(torch.stack([first, second]))[0, 1]
    assert abs(float(correlation)) < 0.2
    assert float(first.var()) == pytest.approx(25, rel=0.3)  # blocks are independent too


def test_blocks_of_one_input_are_independent():
    """Variance of a long count is n p (1 - p): repeated blocks would multiply it."""
    x = torch.zeros(400, 1)
    counts = Smoothed(uniform(2), Gaussian(1.0), 2).counts(x, 1000)[:, 0].double()
    assert float(counts.var()) == pytest.approx(250, rel=0.3)


@pytest.mark.parametrize("sigma", [0.1, 1.0])
def test_radius_of_a_linear_classifier_is_below_the_true_distance(sigma):
    torch.manual_seed(5)
    direction, x = torch.randn(12), torch.randn(60, 3, 4)
    smoothed = Smoothed(linear(direction, 0.3), Gaussian(sigma), 2, seed=4)
    result = smoothed.certify(x, n=2000, alpha=1e-4)
    score = x.flatten(1) @ direction + 0.3
    distance = score.abs() / direction.norm()
    sure = result.certified
    assert int(sure.sum()) >= 20
    assert (result.prediction[sure] == (score > 0).long()[sure]).all()
    assert (result.radius[sure] <= distance[sure]).all()
    near = sure & (distance < 2 * sigma)
    assert (result.radius[near] >= distance[near] - 0.35 * sigma).all()  # and not far below it


def test_predict_abstains_rather_than_guesses():
    trials = 2000
    smoothed = Smoothed(uniform(2), Gaussian(1.0), 2)
    answers = smoothed.predict(torch.zeros(trials, 1), n=100, alpha=ALPHA)
    # On a tie of two classes any answer counts as a failure.
    assert excess(int((answers >= 0).sum()), trials, ALPHA) > FINE
    far = Smoothed(linear(torch.ones(1)), Gaussian(1.0), 2).predict(torch.tensor([[-1.0], [1.0]]))
    assert far.tolist() == [0, 1]
    assert far.dtype == torch.int64


def test_predict_is_wrong_no_more_often_than_alpha():
    """A weak majority: most inputs abstain, and the minority class is almost never returned."""
    p = 0.52
    x = torch.full((2000, 1), float(torch.special.ndtri(torch.tensor(p, dtype=torch.float64))))
    answers = Smoothed(linear(torch.ones(1)), Gaussian(1.0), 2).predict(x, n=100, alpha=ALPHA)
    assert excess(int((answers == 0).sum()), 2000, ALPHA) > FINE
    assert 0 < int((answers == 1).sum()) < 2000
    assert (answers == -1).any()


def test_abstention_is_never_correct():
    result = Smoothed(uniform(3), Gaussian(1.0), 3).certify(torch.zeros(20, 1), n=200)
    assert (result.prediction == -1).all()
    assert not result.certified.any()
    assert (result.radius == 0).all()
    assert all(v is Verdict.UNKNOWN for v in result.verdict)
    assert {row["reason"] for row in result.to_rows()} == {"abstained"}
    for label in range(3):
        assert not (result.prediction == label).any()


def test_evidence_repeats_the_computation():
    x = torch.full((3, 1), 0.4, dtype=torch.float64)
    smoothed = Smoothed(linear(torch.ones(1, dtype=torch.float64)), Gaussian(0.5), 2, seed=9)
    result = smoothed.certify(x, n0=50, n=300, alpha=0.01, ids=[4, 2, 8])
    for b, record in enumerate(result.evidence):
        assert record["noise"] == {"kind": "Gaussian", "sigma": 0.5}
        assert [record[k] for k in ("n0", "n", "alpha", "seed", "id")] == [
            50,
            300,
            0.01,
            9,
            [4, 2, 8][b],
        ]
        assert record["class"] == 1
        bound = lower_bound(record["counts"][1], 300, 0.01)
        assert record["probability"] == bound
        assert float(result.radius[b]) == Gaussian(0.5).radius(bound)
        assert record["counts"][1] / 300 == pytest.approx(float(ndtr(0.8)), abs=0.1)
    assert result.method == "smoothing"
    assert result.threat == "l2"
    assert result.confidence == 0.99
    assert result.radius.dtype == torch.float64
    assert torch.isnan(result.margin).all()
