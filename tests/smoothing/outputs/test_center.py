"""Center smoothing: masses of balls known on the line, answers of attacked inputs, metrics that are none."""

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from tests.smoothing.outputs.known import FINE, Linear, excess, matrix, moved

from certus.core import ArgumentError, ModelError
from certus.smoothing import Gaussian
from certus.smoothing.outputs import CenterSmoothing

ALPHA, SIGMA = 0.05, 0.5
ONE = Linear(torch.ones(1, 1, dtype=torch.float64))


def euclid(one, many):
    return (many - one).flatten(1).norm(dim=1)


def smoothed(module=ONE, metric=euclid, **options):
    return CenterSmoothing(
        module, Gaussian(SIGMA), metric, **{"margin": 0.25, "candidates": 20} | options
    )


def mass(center, size, at):
    """Share of normal outputs around `at` within `size` of center."""
    return ndtr((center + size - at) / SIGMA) - ndtr((center - size - at) / SIGMA)


@pytest.mark.parametrize(("radius", "trials"), [(0.0, 800), (0.25, 200)])
def test_the_ball_holds_its_mass_wherever_the_input_moves(radius, trials):
    x = torch.zeros(trials, 1, dtype=torch.float64)
    found = smoothed(seed=1).certify(x, radius, n0=150, n=150, alpha=ALPHA)
    known = ~found.abstained.numpy()
    center, size = found.center[:, 0].numpy()[known], found.reach.numpy()[known]
    least = np.minimum(mass(center, size, radius), mass(center, size, -radius))
    wrong = int((least < 0.5 + 0.25).sum())
    assert known.mean() > 0.9
    assert excess(wrong, trials, ALPHA / 2) > FINE
    if radius == 0.0:
        assert (
            excess(wrong, trials, ALPHA / 8) < 0.01
        )  # nearly as often as its half of alpha allows
    assert (found.drift[known] >= 3 * found.reach[known]).all()


def test_answers_at_attacked_inputs_stay_within_the_drift():
    """Of a module with two clusters of outputs, so that answers can jump."""

    def clusters(z):
        return torch.stack([z[:, 0].sign() * 5 + z[:, 0], z[:, 1]], 1)

    radius, trials = 0.2, 60
    start = matrix(trials, 2, 5) * torch.tensor([0.8, 1.0], dtype=torch.float64)
    g = smoothed(clusters, seed=2)
    found = g.certify(start, radius, n0=150, n=400, alpha=ALPHA)
    known = ~found.abstained
    wrong = 0
    for k in range(6):
        attacked = torch.cat([moved(one, radius, 1, 100 * k + b) for b, one in enumerate(start)])
        if k < 2:  # towards the jump
            attacked = start - torch.tensor([radius * (1 if k else -1), 0.0], dtype=torch.float64)
        answers = g.predict(
            attacked, 150, ALPHA, ids=range(1000 * k + 1000, 1000 * k + 1000 + trials)
        )
        there = known & ~answers.isnan().any(1)
        apart = (answers - found.center).norm(dim=1)
        wrong += int((apart[there] > found.drift[there]).sum())
    assert excess(wrong, 6 * trials, ALPHA) > FINE
    assert int(known.sum()) > trials // 2
    assert float(found.reach[known].min()) < 2.0 < float(found.reach[known].max())


def test_the_answer_is_in_the_cluster_that_holds_half():
    """Candidates from the smaller cluster have half of the samples far away."""

    def clusters(z):
        return torch.where(z > -0.25, z, z + 100)  # 69% near 0

    found = smoothed(clusters).certify(
        torch.zeros(40, 1, dtype=torch.float64), 0.0, 150, 800, ALPHA
    )
    assert not found.abstained.any()
    assert (found.center.abs() < 1).all()
    small = smoothed(clusters, margin=0.14).certify(
        torch.zeros(1, 1, dtype=torch.float64), 0.0, 600, 2000, ALPHA
    )
    assert float(small.reach) < 2


def test_certify_answers_what_predict_does():
    x = matrix(4, 1)
    g = smoothed()
    found = g.certify(x, 0.1, n0=150, n=300, alpha=ALPHA)
    assert not found.abstained.all()
    torch.testing.assert_close(
        found.center, g.predict(x, 150, ALPHA), rtol=0, atol=0, equal_nan=True
    )
    assert found.threat == "l2"
    assert found.confidence == 1 - ALPHA
    turned = smoothed(batch=33).certify(x[[2, 0]], 0.1, n0=150, n=300, alpha=ALPHA, ids=[2, 0])
    torch.testing.assert_close(turned.center, found.center[[2, 0]], equal_nan=True)
    torch.testing.assert_close(turned.reach, found.reach[[2, 0]])


def test_a_metric_of_sets():
    """Jaccard distance of sets of labels, which no norm gives."""

    def labels(z):
        return (z > 0).double()

    def jaccard(one, many):
        both = torch.minimum(one, many).sum(1)
        either = torch.maximum(one, many).sum(1)
        return torch.where(either > 0, 1 - both / either.clamp(min=1), 0.0)

    x = torch.tensor([[2.0, 2.0, -2.0, -2.0], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    found = smoothed(labels, jaccard).certify(x, 0.3, n0=150, n=2000, alpha=ALPHA)
    assert found.center[0].tolist() == [1, 1, 0, 0]
    assert float(found.reach[0]) == 0.0  # no attack changes the answer
    assert float(found.reach[1]) >= 0.5


def test_the_radius_grows_with_the_attack_and_is_infinite_where_samples_are_too_few():
    x = torch.zeros(1, 1, dtype=torch.float64)
    g = smoothed()
    sizes = [float(g.certify(x, r, 150, 500, ALPHA).reach) for r in (0.0, 0.2, 0.4, 5.0)]
    assert sizes == sorted(sizes)
    assert np.isfinite(sizes[2])
    assert sizes[3] == np.inf


def test_it_abstains_where_the_ball_holds_too_little():
    """A median over 20 samples of many equal points may be lucky: the check is what tells."""
    n0 = 150

    def points(z):  # 40 far points, each as likely
        return ((z[:, :1] * 1000).frac().add(1).frac() * 40).floor()

    def discrete(one, many):
        return (many != one).any(1).double()

    g = smoothed(points, discrete)
    found = g.certify(torch.zeros(3, 1, dtype=torch.float64), 0.1, n0, 300, ALPHA)
    assert not found.abstained.any()  # all points are 1 apart: a ball of radius 1 holds them all
    assert (found.reach == 1).all()

    class Lucky:
        """The draws that choose cluster at 0, those that check and bound are spread out."""

        calls = 0

        def __call__(self, z):
            self.calls += 1
            return torch.zeros_like(z) if self.calls <= 6 else z * 100

    lucky = smoothed(Lucky(), euclid, batch=150).certify(
        torch.zeros(1, 1, dtype=torch.float64), 0.1, n0, 300, ALPHA
    )
    assert lucky.abstained.all()
    assert lucky.center.isnan().all()
    assert torch.isinf(lucky.reach).all() and torch.isinf(lucky.drift).all()


X = torch.zeros(1, 1, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: smoothed(metric=None), "metric must be callable"),
        (lambda: smoothed(margin=0.0), "margin"),
        (lambda: smoothed(margin=0.5), "margin"),
        (lambda: smoothed(candidates=0), "candidates"),
        (lambda: smoothed().predict(X, 6, ALPHA), "too few for margin"),
        (lambda: smoothed(candidates=1).predict(X, 500, ALPHA), "too few for margin"),
        (lambda: smoothed().certify(X, -1.0, 150), "radius"),
        (lambda: smoothed().certify(X, 0.1, 150, alpha=1.0), "alpha"),
        (lambda: smoothed().certify(X, 0.1, 150, 0, ALPHA), "n must"),
        (
            lambda: smoothed(metric=lambda a, b: euclid(a, b) ** 2).predict(X, 150, ALPHA),
            "triangle",
        ),
        (
            lambda: smoothed(metric=lambda a, b: (b - a).relu()[:, 0]).predict(X, 150, ALPHA),
            "symmetric",
        ),
        (lambda: smoothed(metric=lambda a, b: (b - a)[:, 0]).predict(X, 150, ALPHA), ">= 0"),
        (lambda: smoothed(metric=lambda a, b: b - a).predict(X, 150, ALPHA), r"distances \[150\]"),
        (lambda: smoothed(metric=lambda a, b: 1.0).predict(X, 150, ALPHA), r"distances \[150\]"),
    ],
)
def test_bad_arguments_are_one_clear_line(call, words):
    with pytest.raises(ArgumentError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_modules_that_cannot_be_used():
    with pytest.raises(ModelError, match="NaN"):
        smoothed(lambda z: torch.where(z > 1.2, float("nan"), z)).predict(X, 500, ALPHA)
    with pytest.raises(ModelError, match="not deterministic"):
        smoothed(lambda z: z + torch.rand(1)).predict(X, 500, ALPHA)


def test_progress_reaches_the_total():
    seen = []
    smoothed().certify(X, 0.1, 150, 300, ALPHA, progress=lambda *a: seen.append(a))
    assert seen[-1] == (600, 600, "reach")
    assert [s[0] for s in seen] == sorted(s[0] for s in seen)
