"""Percentile smoothing: exact percentiles of linear and of stepped functions, tightness, refusals."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import ndtr, ndtri
from tests.smoothing.outputs.known import CLEAR, FINE, Linear, excess, matrix, moved

from certus.core import ArgumentError, ModelError
from certus.smoothing import Gaussian
from certus.smoothing.draws import SELECT, Stream
from certus.smoothing.noise import Ablation, Laplace, Uniform
from certus.smoothing.outputs import SmoothedRegression
from certus.smoothing.outputs.order import upper_order

ALPHA, TRIALS = 0.1, 2000
ONE = Linear(torch.ones(1, 1, dtype=torch.float64))


@pytest.mark.parametrize(
    ("noise", "law", "p", "radius", "trials"),
    [
        (Gaussian(0.5), stats.norm(0, 0.5), 0.5, 0.2, 5000),
        (Gaussian(0.5), stats.norm(0, 0.5), 0.2, 0.1, 1500),
        (Laplace(0.4), stats.laplace(0, 0.4), 0.5, 0.3, 1500),
        (Uniform(0.8), stats.uniform(-0.8, 1.6), 0.7, 0.25, 1500),
    ],
)
def test_intervals_fail_no_more_often_than_alpha_and_nearly_as_often(noise, law, p, radius, trials):
    """Of a linear function the worst case is known: each end fails with the chance of its order statistic."""
    n = 80
    g = SmoothedRegression(ONE, noise, percentile=p, seed=1)
    found = g.certify(torch.zeros(trials, 1, dtype=torch.float64), radius, n=n, alpha=ALPHA)
    above = (found.upper < law.ppf(p) + radius).numpy()
    below = (found.lower > law.ppf(p) - radius).numpy()
    for failed, level in (
        (above, law.cdf(law.ppf(p) + radius)),
        (below, law.cdf(radius - law.ppf(p))),
    ):
        exact = float(stats.binom.sf(upper_order(n, level, ALPHA / 2) - 1, n, level))
        assert excess(int(failed.sum()), trials, ALPHA / 2) > FINE
        assert excess(int(failed.sum()), trials, exact * 0.5) < 0.01  # the bounds are attained
    assert excess(int((above | below).sum()), trials, ALPHA) > FINE
    assert (found.lower <= found.estimate).all()
    assert (found.estimate <= found.upper).all()

    # Mistake: the empirical percentiles of the two levels, without their confidence.
    mistaken = g.certify(torch.zeros(500, 1, dtype=torch.float64), radius, n=n, alpha=0.999)
    wrong = (mistaken.upper < law.ppf(p) + radius) | (mistaken.lower > law.ppf(p) - radius)
    assert excess(int(wrong.sum()), 500, ALPHA) < CLEAR


def test_a_stepped_function_of_known_percentiles():
    """Discrete outputs: the percentile jumps with the input, and ties must not break the ranks."""

    def steps(z):
        return torch.floor(z)

    sigma, radius, at = 0.6, 0.3, 0.05
    g = SmoothedRegression(steps, Gaussian(sigma), seed=2)
    x = torch.full((TRIALS, 1), at, dtype=torch.float64)
    found = g.certify(x, radius, n=100, alpha=ALPHA)
    # the medians of floor(x' + noise) for x' in (-0.25, 0.35) are -1 and 0
    wrong = (found.lower > -1) | (found.upper < 0)
    assert excess(int(wrong.sum()), TRIALS, ALPHA) > FINE
    assert (found.upper <= 1).double().mean() > 0.9


def test_all_outputs_of_an_input_hold_together():
    size, trials, radius = 8, 1200, 0.2
    weights = matrix(size, 5)
    x = torch.zeros(trials, 5, dtype=torch.float64)
    reach = radius * weights.norm(dim=1)

    def wrong(joint):
        g = SmoothedRegression(Linear(weights), Gaussian(0.5), seed=3, joint=joint)
        found = g.certify(x, radius, n=100, alpha=ALPHA)
        return ((found.upper < reach) | (found.lower > -reach)), found.confidence

    failed, confidence = wrong(True)
    assert confidence == 1 - ALPHA
    assert excess(int(failed.any(1).sum()), trials, ALPHA) > FINE
    each, _ = wrong(False)
    for column in each.T:
        assert excess(int(column.sum()), trials, ALPHA) > FINE
    assert excess(int(each.any(1).sum()), trials, ALPHA) < CLEAR  # which is not a joint claim


def test_medians_of_attacked_inputs_lie_in_the_interval():
    """A curved network: medians at attacked inputs by many samples of other draws."""
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
    net = net.double().eval()
    g = SmoothedRegression(net, Gaussian(0.4), seed=4)
    x, radius = matrix(1, 4), 0.3
    found = g.certify(x, radius, n=20_000)
    attacked = moved(x[0], radius * 0.999, 20)
    weights = net[0].weight.detach()
    for sign in (-1, 1):  # and along the strongest direction
        attacked = torch.cat([attacked, x + sign * 0.29 * torch.linalg.svd(weights)[2][:1]])
    other = g.certify(attacked, 0.0, n=20_000, ids=range(100, 122))
    assert (other.estimate >= found.lower).all()
    assert (other.estimate <= found.upper).all()
    assert (found.upper - found.lower < 3).all()


def test_tolerance_radius_is_below_the_true_one_and_fails_at_most_at_alpha():
    sigma, tolerance, trials = 0.5, 0.4, TRIALS
    g = SmoothedRegression(ONE, Gaussian(sigma), seed=5)
    found = g.within(torch.zeros(trials, 1, dtype=torch.float64), tolerance, 20, 120, ALPHA)
    true = tolerance - found.center.abs()  # |x' - center| <= tolerance for all |x'| below this
    wrong = found.radius > true.clamp(min=0)
    assert excess(int(wrong.sum()), trials, ALPHA) > FINE
    assert excess(int(wrong.sum()), trials, ALPHA / 20) < CLEAR  # close to the truth
    assert found.radius.dtype == torch.float64

    many = g.within(torch.zeros(3, 1, dtype=torch.float64), tolerance, 20_000, 200_000)
    assert many.radius == pytest.approx(tolerance, abs=0.02)
    other = SmoothedRegression(ONE, Gaussian(sigma), seed=5, percentile=0.8)
    far = other.within(torch.zeros(1, 1, dtype=torch.float64), tolerance, 20_000, 200_000)
    assert far.center == pytest.approx(sigma * ndtri(0.8), abs=0.02)
    assert far.radius == pytest.approx(tolerance, abs=0.03)


def test_evidence_of_tolerances_repeats_the_computation():
    g = SmoothedRegression(ONE, Gaussian(0.5), seed=5)
    found = g.within(torch.zeros(1, 1, dtype=torch.float64), 0.4, 20, 120, ALPHA)
    record = found.evidence[0]
    least = min(record["above"][0], record["below"][0])
    lower = stats.beta.ppf(ALPHA / 2, least, 120 - least + 1)
    assert float(found.radius) == pytest.approx(max(0.0, 0.5 * ndtri(lower)), rel=1e-9)
    draws = torch.empty(20, 1, dtype=torch.float64)
    Stream.of(Gaussian(0.5), 5, 0, SELECT).fill(draws, 0, torch.Generator())
    assert float(found.center) == float(draws.median())  # not of the samples that are counted
    assert {"noise", "seed", "id", "n0", "n", "alpha", "tolerance"} <= record.keys()


def test_too_few_samples_bound_nothing():
    x = torch.zeros(2, 1, dtype=torch.float64)
    g = SmoothedRegression(ONE, Gaussian(0.5))
    few = g.certify(x, 0.2, n=5, alpha=1e-3)
    assert (few.lower == -torch.inf).all() and (few.upper == torch.inf).all()
    far = g.certify(x, 1000.0, n=1000)
    assert (far.lower == -torch.inf).all() and (far.upper == torch.inf).all()
    assert (g.within(x, 0.4, 5, 5).radius == 0).all()
    # 0.5^n at the two ends
    assert torch.isfinite(g.certify(x, 0.0, n=11, alpha=1e-3).lower).all()
    assert torch.isinf(g.certify(x, 0.0, n=10, alpha=1e-3).lower).all()


@pytest.mark.parametrize("batch", [1, 50, 64, 300])
def test_answers_depend_on_nothing_but_seed_and_id(batch):
    module = Linear(matrix(6, 4), 1.0, (2, 3))
    x, ids = matrix(5, 4, 1), [3, 1, 4, 15, 9]
    whole = SmoothedRegression(module, Gaussian(0.5)).certify(x, 0.1, n=150, ids=ids)
    assert whole.lower.shape == (5, 2, 3)
    order = [4, 2, 0]
    g = SmoothedRegression(module, Gaussian(0.5), batch=batch)
    turned = g.certify(x[order], 0.1, n=150, ids=[ids[b] for b in order])
    for name in ("lower", "estimate", "upper"):
        assert getattr(turned, name).numpy() == pytest.approx(getattr(whole, name)[order].numpy())
    other = SmoothedRegression(module, Gaussian(0.5), seed=1).certify(x, 0.1, n=150, ids=ids)
    assert not torch.equal(other.lower, whole.lower)


def test_threads_and_groups_change_nothing(monkeypatch):
    module, x = Linear(matrix(3, 4)), matrix(5, 4, 1)
    expected = SmoothedRegression(module, Gaussian(0.5)).certify(x, 0.1, n=500)
    held = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        found = SmoothedRegression(module, Gaussian(0.5)).certify(x, 0.1, n=500)
    finally:
        torch.set_num_threads(held)
    assert torch.equal(found.lower, expected.lower)
    monkeypatch.setattr("certus.smoothing.outputs.sampled.MEMORY", 30_000)
    assert torch.equal(
        SmoothedRegression(module, Gaussian(0.5)).certify(x, 0.1, n=500).lower, expected.lower
    )


def test_progress_reaches_the_total():
    seen = []
    g = SmoothedRegression(ONE, Gaussian(0.5))
    x = torch.zeros(3, 1, dtype=torch.float64)
    g.certify(x, 0.1, n=200, progress=lambda *a: seen.append(a))
    assert seen[-1] == (600, 600)
    g.within(x, 0.1, 50, 200, progress=lambda *a: seen.append(a))
    assert seen[-1] == (750, 750, "estimation")


X = torch.zeros(2, 1, dtype=torch.float64)


@pytest.mark.parametrize(
    "call",
    [
        lambda: SmoothedRegression(None, Gaussian(1.0)),
        lambda: SmoothedRegression(ONE, 0.5),
        lambda: SmoothedRegression(ONE, Gaussian(0.0)),
        lambda: SmoothedRegression(ONE, Ablation(3, 5)),
        lambda: SmoothedRegression(ONE, Gaussian(1.0), percentile=0.0),
        lambda: SmoothedRegression(ONE, Gaussian(1.0), percentile=1.0),
        lambda: SmoothedRegression(ONE, Gaussian(1.0), batch=0),
        lambda: SmoothedRegression(ONE, Gaussian(1.0)).certify(X, -0.1),
        lambda: SmoothedRegression(ONE, Gaussian(1.0)).certify(X, float("nan")),
        lambda: SmoothedRegression(ONE, Gaussian(1.0)).certify(X, float("inf")),
        lambda: SmoothedRegression(ONE, Gaussian(1.0)).certify(X, 0.1, n=0),
        lambda: SmoothedRegression(ONE, Gaussian(1.0)).certify(X, 0.1, alpha=0.0),
        lambda: SmoothedRegression(ONE, Gaussian(1.0)).certify(X, 0.1, alpha=1.0),
        lambda: SmoothedRegression(ONE, Gaussian(1.0)).certify(X, 0.1, ids=[1]),
        lambda: SmoothedRegression(ONE, Gaussian(1.0)).certify(X * float("nan"), 0.1),
        lambda: SmoothedRegression(ONE, Gaussian(1.0)).within(X, 0.0),
        lambda: SmoothedRegression(ONE, Gaussian(1.0)).within(X, 0.1, n0=30, n=20),
    ],
)
def test_bad_arguments_are_one_clear_line(call):
    with pytest.raises(ArgumentError) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (lambda z: torch.where(z > 2.5, float("nan"), z), "NaN"),
        (lambda z: z / 0, "NaN or infinite"),
        (lambda z: z > 0, "floating-point"),
        (lambda z: None, "NoneType"),
        (lambda z: z[:1], "an output for each of 8"),
        (lambda z: z.mean(), "an output for each of 8"),
        (lambda z: z[:, :0], "an output for each"),
        (lambda z: z if len(z) <= 8 else torch.cat([z, z], 1), "same shape"),
        (lambda z: z + torch.rand(1), "not deterministic"),
        (lambda z: z - z.mean(0), "rest of the batch"),
        (torch.nn.Dropout(0.5), "training mode"),
    ],
)
def test_modules_that_cannot_be_used(module, words):
    with pytest.raises(ModelError, match=words) as caught:
        SmoothedRegression(module, Gaussian(1.0)).certify(X, 0.1, n=500)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_kept_as_it_is(dtype):
    found = SmoothedRegression(lambda z: z, Gaussian(0.5)).certify(X.to(dtype), 0.1, n=500)
    assert torch.equal(found.lower, found.lower.to(dtype).double())


def test_scalar_outputs_and_levels():
    g = SmoothedRegression(lambda z: z[:, 0], Gaussian(0.5))
    found = g.certify(X, 0.25, n=100_000, alpha=0.01)
    assert found.upper.shape == (2,)
    low, high = found.evidence[0]["ranks"]
    assert low == 100_001 - high
    assert high / 100_000 == pytest.approx(ndtr(0.5), abs=0.006)
    assert found.upper.numpy() == pytest.approx(np.full(2, 0.25), abs=0.02)
