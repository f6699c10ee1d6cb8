"""Double sampling as a whole: what it claims, samples and writes down."""

from functools import partial

import pytest
import torch
from scipy.special import bdtrc
from torch import Tensor

from certus.core import ArgumentError, Reason, Verdict
from certus.core.kinds import to_json
from certus.smoothing import Gaussian, Smoothed, lower_bound
from certus.smoothing.double_sampling import DoubleSampling
from certus.smoothing.noise import GeneralGaussian, Truncated, fitted_cut
from certus.smoothing.noise.doubled import doubled_radius

FIRST = GeneralGaussian(0.5, 20, 64)
SECONDS = {
    "narrower": GeneralGaussian(0.4, 20, 64),
    "cut": Truncated(FIRST, 0.8),
    "fitted": partial(fitted_cut, FIRST),
}


def half_space(z: Tensor) -> Tensor:
    """Class 1 where the first value is above zero."""
    score = z.flatten(1)[:, 0]
    return torch.stack([-score, score], 1)


def ball(z: Tensor) -> Tensor:
    """Class 1 in the ball of radius 5.3 around the origin: all errors are far out."""
    score = 5.3 - z.flatten(1).norm(dim=1)
    return torch.stack([-score, score], 1)


def points(*first: float) -> Tensor:
    x = torch.zeros(len(first), 1, 8, 8)
    x[:, 0, 0, 0] = torch.tensor(first)
    return x


@pytest.mark.parametrize("kind", SECONDS)
def test_certificates_and_their_evidence(kind):
    smoothed = DoubleSampling(half_space, FIRST, SECONDS[kind], 2, seed=3)
    x = points(0.5, -0.6, 0.0)
    found = smoothed.certify(x, n0=50, n=2000, n2=1500, alpha=0.01, ids=[7, 8, 9])
    assert found.prediction.tolist() == [1, 0, -1]
    assert found.verdict == [Verdict.VERIFIED, Verdict.VERIFIED, Verdict.UNKNOWN]
    assert found.reason[2] is Reason.ABSTAINED
    assert found.threat == "l2"
    assert found.confidence == 0.99
    assert (found.radius <= x[:, 0, 0, 0].abs()).all()
    for b, record in enumerate(found.evidence[:2]):
        plain = Smoothed(half_space, FIRST, 2, seed=3)
        assert plain.counts(x[b : b + 1], 2000, [7 + b], stage=2)[0].tolist() == record["counts"]
        hits = record["counts"][record["class"]]
        assert record["probability"] == float(lower_bound(hits, 2000, 0.005))
        second = record["second_counts"][record["class"]]
        assert sum(record["second_counts"]) == 1500
        assert record["second_probability"] == float(lower_bound(second, 1500, 0.005))
        assert record["radius"] == float(found.radius[b]) >= record["first_radius"] > 0
        law = SECONDS[kind]
        law = law(record["probability"]) if callable(law) else law
        assert record["second"] == to_json(law)
        told = record["probability"], record["second_probability"]
        assert record["radius"] == doubled_radius(FIRST, law, *told)
    assert found.evidence[2]["n2"] == 0, "nothing is sampled where no majority is proven"


def test_it_pays_where_errors_are_far_out():
    x = points(0.0)
    found = DoubleSampling(ball, FIRST, SECONDS["cut"], 2).certify(x, n=4000, n2=4000)
    record = found.evidence[0]
    assert float(found.radius[0]) > 1.05 * record["first_radius"]
    # The truth: the probability of the ball falls to 1/2 well beyond the radius.
    shifted = points(float(found.radius[0]))
    assert int(Smoothed(ball, FIRST, 2).predict(shifted, 4000)[0]) == 1


@pytest.mark.slow
def test_it_fails_no_more_often_than_alpha():
    """Half-spaces at a known distance: the radius exceeds it with chance at most alpha."""
    trials, alpha, distance = 200, 0.3, 0.4
    x = points(distance).repeat(trials, 1, 1, 1)
    smoothed = DoubleSampling(half_space, FIRST, SECONDS["narrower"], 2)
    found = smoothed.certify(x, n0=10, n=20, n2=20, alpha=alpha)
    wrong = int(((found.prediction == 0) | (found.radius > distance)).sum())
    assert float(bdtrc(wrong - 1, trials, alpha)) > 1e-4 if wrong else True


def test_draws_do_not_depend_on_the_order_of_inputs():
    smoothed = DoubleSampling(half_space, FIRST, SECONDS["cut"], 2, batch=37)
    x = points(0.5, 0.3)
    both = smoothed.certify(x, n0=20, n=300, n2=300, ids=[4, 5])
    swapped = smoothed.certify(x.flip(0), n0=20, n=300, n2=300, ids=[5, 4])
    assert both.radius.tolist() == swapped.radius.tolist()[::-1]
    other = DoubleSampling(half_space, FIRST, SECONDS["cut"], 2, batch=500)
    assert other.certify(x, n0=20, n=300, n2=300, ids=[4, 5]).radius.equal(both.radius)


def test_progress_reaches_its_total():
    seen: list[tuple[int, int]] = []
    smoothed = DoubleSampling(half_space, FIRST, SECONDS["cut"], 2)
    smoothed.certify(
        points(0.5, 0.0),
        n0=20,
        n=200,
        n2=300,
        progress=lambda done, total, *_: seen.append((done, total)),
    )
    assert seen[-1] == (2 * 520, 2 * 520)
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)


def test_bad_arguments():
    for first, second in (
        (Gaussian(0.5), SECONDS["cut"]),
        (FIRST, GeneralGaussian(0.6, 20, 64)),
        (FIRST, Truncated(GeneralGaussian(0.4, 20, 64), 0.5)),
        (FIRST, 0.4),
    ):
        with pytest.raises(ArgumentError):
            DoubleSampling(half_space, first, second, 2)
    good = DoubleSampling(half_space, FIRST, SECONDS["cut"], 2)
    for wrong in ({"n0": 200, "n": 100}, {"n2": 0}, {"alpha": 1.0}, {"ids": [1]}):
        with pytest.raises(ArgumentError):
            good.certify(points(0.1, 0.2), **({"n0": 10, "n": 100, "n2": 100} | wrong))
    with pytest.raises(ArgumentError, match="64 values"):
        good.certify(torch.zeros(1, 3, 8, 8), n0=10, n=100, n2=100)
    bad = DoubleSampling(half_space, FIRST, lambda p: GeneralGaussian(0.9, 20, 64), 2)
    with pytest.raises(ArgumentError, match="second noise"):
        bad.certify(points(0.5), n0=10, n=100, n2=100)
