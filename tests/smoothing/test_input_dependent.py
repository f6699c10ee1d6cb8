"""Smoothing with a deviation for every input: the rule, the certificates, and why they are smaller."""

import json

import mpmath as mp
import numpy as np
import pytest
import torch
from scipy.special import bdtrc, ndtri
from torch import Tensor

from certus.core import ArgumentError, ModelError, Reason, Verdict
from certus.core.kinds import to_json
from certus.evaluation.transcript import PROVED, WRONG, audit
from certus.smoothing import Gaussian, InputDependent, NearestPoints, SemiElastic, Smoothed
from certus.smoothing.noise import ElasticGaussian
from certus.smoothing.noise.balls import mass
from certus.smoothing.rules import TwoSided
from certus.smoothing.semi_elastic import _CHUNK

SHAPE = (1, 4, 4)


def rule(r=0.05, count=40, **given) -> NearestPoints:
    points = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(3))
    return NearestPoints(points, **({"sigma": 0.5, "r": r, "k": 5, "distance": 1.5} | given))


def half_space(z: Tensor) -> Tensor:
    """Class 1 where the first value is above zero."""
    score = z.flatten(1)[:, 0]
    return torch.stack([-score, score], 1)


def inputs(*first: float) -> Tensor:
    x = torch.zeros(len(first), *SHAPE)
    x[:, 0, 0, 0] = torch.tensor(first)
    return x


class Ball:
    """Class 1 on the worst set for a step a along the first axis to the deviation sigma exp(r a)."""

    def __init__(self, noise: ElasticGaussian, distance: float, way: int) -> None:
        self.noise, step = noise, distance / noise.sigma
        self.bend = np.expm1(2 * way * noise.r * distance) / (2 * step)
        self.level = 0.0

    def __call__(self, z: Tensor) -> Tensor:
        z = z.flatten(1).double() / self.noise.sigma
        score = self.level - z[:, 0] - self.bend * z.square().sum(1)
        return torch.stack([-score, score], 1)

    def meets(self, probability: float) -> "Ball":
        low, high = -1e4, 1e4
        for _ in range(90):
            self.level = (low + high) / 2
            below = mass(self.noise.size, self.bend, self.level) < probability
            low, high = (self.level, high) if below else (low, self.level)
        return self


def test_the_rule_is_a_mean_of_distances():
    x = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(5))
    found, own = rule().distances(x), rule()
    far = (x.double()[:, None] - own.points.double()).flatten(2).norm(dim=2).numpy()
    assert found == pytest.approx(np.sort(far, axis=1)[:, :5].mean(1), rel=1e-13)
    sigma, rounding = own.at(x)
    assert sigma == pytest.approx(0.5 * np.exp(0.05 * (found - 1.5)), rel=1e-13)
    assert (rounding < 1e-12).all()
    assert np.array_equal(own.at(x.flip(0))[0][::-1], sigma)
    assert own.at(x[2:3])[0][0] == sigma[2]
    assert own.points.data_ptr() != rule().points.data_ptr()
    assert repr(own) == repr(rule()) != repr(rule(count=41))


def test_many_points_are_compared_in_parts():
    points = torch.rand(300, 1, 80, 80, generator=torch.Generator().manual_seed(3))
    assert points.numel() > _CHUNK
    own = NearestPoints(points, sigma=1.0, r=0.1, k=30)
    far = (points[:7].double() - points[3:4].double()).flatten(1).norm(dim=1)
    whole = (points.double() - points[3:4].double()).flatten(1).norm(dim=1)
    assert far[3] == 0
    assert own.distances(points[3:4])[0] == pytest.approx(float(whole.sort().values[:30].mean()))


def test_the_rule_keeps_to_its_elasticity():
    own, generator = rule(r=0.7), torch.Generator().manual_seed(7)
    near = torch.rand(1, *SHAPE, generator=generator)
    for scale in (1e-6, 1e-3, 0.1, 3.0):
        x = near + scale * torch.randn(60, *SHAPE, generator=generator)
        sigma, rounding = own.at(x)
        gap = (x.double()[:, None] - x.double()[None]).flatten(2).norm(dim=2).numpy()
        change = np.abs(np.log(sigma)[:, None] - np.log(sigma)[None])
        assert (change <= 0.7 * gap + rounding[:, None]).all()
    assert change.max() > 0.3


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_rounding_of_the_rule_is_covered(scale):
    points = scale * torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(3))
    own = NearestPoints(points, sigma=0.5, r=3.0, k=2, distance=1.5 * scale)
    x = scale * torch.rand(40, *SHAPE, generator=torch.Generator().manual_seed(5))
    sigma, rounding = own.at(x)
    worst = 0.0
    with mp.workdps(40):
        for row, value, lost in zip(x.flatten(1).tolist(), sigma, rounding, strict=True):
            if not 1e-300 < value < 1e300:
                continue
            far = sorted(
                mp.sqrt(sum((mp.mpf(a) - mp.mpf(b)) ** 2 for a, b in zip(row, point, strict=True)))
                for point in points.flatten(1).tolist()
            )
            exact = mp.mpf(0.5) * mp.exp(3 * ((far[0] + far[1]) / 2 - mp.mpf(1.5 * scale)))
            error = abs(mp.log(mp.mpf(float(value)) / exact))
            assert error < lost / 2
            worst = max(worst, float(error))
    assert worst > (16 * np.finfo(float).eps if scale > 1 else 0)


def test_certificates_and_their_evidence():
    own = InputDependent(half_space, rule(), 2, seed=3)
    x = inputs(0.6, -0.7, 0.0)
    found = own.certify(x, n0=50, n=2000, alpha=0.01, ids=[7, 8, 9])
    assert found.prediction.tolist() == [1, 0, -1]
    assert own.predict(x, 500, ids=[7, 8, 9]).tolist() == [1, 0, -1]
    assert found.verdict == [Verdict.VERIFIED, Verdict.VERIFIED, Verdict.UNKNOWN]
    assert found.reason == [None, None, Reason.ABSTAINED]
    assert (found.threat, found.method, found.confidence) == ("l2", "input-dependent", 0.99)
    assert (found.radius <= x[:, 0, 0, 0].abs()).all()
    for b, (noise, record) in enumerate(zip(own.noises(x), found.evidence, strict=True)):
        alone = Smoothed(half_space, noise, 2, seed=3)
        again = alone.certify(x[b : b + 1], n0=50, n=2000, alpha=0.01, ids=[7 + b])
        assert again.evidence == [record]
        assert record["noise"] == to_json(noise)
        assert again.radius[0] == found.radius[b]
        plain = noise.sigma * ndtri(max(0.5, record["probability"]))
        assert found.radius[b] < plain or b == 2
        assert noise.sigma == float(np.float32(rule().at(x)[0][b])) != rule().at(x)[0][b]
        assert (noise.r, noise.size) == (0.05, 16)
        assert noise.rounding > 2 * 2**-24, "sigma is rounded to float32 at x and at x'"


def test_without_elasticity_it_is_the_smoothed_classifier():
    x = inputs(0.6, -0.7)
    own = InputDependent(half_space, rule(r=0.0, sigma=0.3), 2, seed=4)
    found = own.certify(x, n0=50, n=1000, ids=[2, 5])
    plain = Smoothed(half_space, Gaussian(0.3), 2, seed=4).certify(x, n0=50, n=1000, ids=[2, 5])
    assert torch.equal(found.radius, plain.radius)
    assert [e["counts"] for e in found.evidence] == [e["counts"] for e in plain.evidence]


def test_draws_do_not_depend_on_the_order_of_inputs_and_rules_apply():
    own = InputDependent(half_space, rule(), 2, batch=37)
    x = inputs(0.5, 0.3)
    both = own.certify(x, ids=[4, 5], rule=TwoSided(n0=20, n=300))
    swapped = own.certify(x.flip(0), ids=[5, 4], rule=TwoSided(n0=20, n=300))
    assert both.radius.tolist() == swapped.radius.tolist()[::-1]
    assert both.evidence[0]["rule"] == to_json(TwoSided(n0=20, n=300))


def test_its_transcripts_are_checked():
    found = InputDependent(half_space, rule(), 2).certify(inputs(0.6), n0=20, n=300)
    row = found.to_rows()[0] | {"index": 0, "norm": "l2", "eps": None, "verdict": ""}
    row["evidence"] = json.dumps(found.evidence[0])
    assert audit(row).state == PROVED
    more = found.evidence[0]["noise"] | {"r": 0.06}
    assert audit(row | {"evidence": json.dumps(found.evidence[0] | {"noise": more})}).state == WRONG


def test_progress_reaches_its_total():
    seen: list[tuple[int, int]] = []
    InputDependent(half_space, rule(), 2).certify(
        inputs(0.5, 0.0),
        n0=20,
        n=200,
        progress=lambda done, total, note="": seen.append((done, total)),
    )
    assert seen[-1] == (440, 440)
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)


@pytest.mark.parametrize("way", [1, -1])
def test_the_uncorrected_radius_is_refuted(way):
    """One point that the attack moves away from (or to): sigma grows or falls as fast as it may.

    The worst set for a step between both radii: the plain one is false, the corrected one holds.
    """
    size, r = 784, 0.05
    point = torch.zeros(1, size)
    point[0, 0] = -30.0 * way
    own_rule = NearestPoints(point, sigma=0.5, r=r, distance=30.0)
    x = torch.zeros(1, size)
    noise = InputDependent(half_space, own_rule, 2).noises(x)[0]
    assert noise.sigma == 0.5
    proven, plain = float(noise.radius(0.95)), 0.5 * ndtri(0.95)
    assert proven < 0.75 * plain
    step = 0.85 * plain
    worst = InputDependent(Ball(noise, step, way).meets(0.95), own_rule, 2)

    def answer(distance):
        moved = x.clone()
        moved[0, 0] = distance
        return int(worst.predict(moved, 10_000)[0])

    found = worst.certify(x, n=3000)
    assert found.prediction.tolist() == [1]
    sure = found.evidence[0]["probability"]
    assert step < 0.5 * ndtri(sure), "the uncorrected certificate reaches beyond the step"
    assert answer(step) == 0, "where the answer is another one"
    assert found.radius[0] < step
    assert answer(0.97 * float(found.radius[0])) == 1


@pytest.mark.slow
def test_it_fails_no_more_often_than_alpha_and_not_much_less():
    """The worst set for a known distance: the radius exceeds it with chance at most alpha."""
    trials, alpha, distance = 400, 0.3, 0.4
    own_rule = NearestPoints(torch.zeros(1, 50), sigma=0.5, r=0.1)
    x = torch.zeros(1, 50)
    noise = InputDependent(half_space, own_rule, 2).noises(x)[0]
    worst = Ball(noise, distance, 1).meets(noise.threshold(distance))
    found = InputDependent(worst, own_rule, 2).certify(
        x.repeat(trials, 1), n0=10, n=60, alpha=alpha
    )
    wrong = int(((found.prediction == 0) | (found.radius > distance)).sum())
    assert wrong > 0.1 * trials
    assert float(bdtrc(wrong - 1, trials, alpha)) > 1e-4


class Steep(SemiElastic):
    """A rule whose answers are no deviations."""

    r = 0.1

    def __init__(self, value: float) -> None:
        self.value = value

    def at(self, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
        return np.full(len(x), self.value), np.zeros(len(x))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), 1e-40])
def test_deviations_that_cannot_be_drawn(value):
    own = InputDependent(half_space, Steep(value), 2)
    for use in (own.certify, own.predict):
        with pytest.raises(ArgumentError, match="rule of sigma"):
            use(inputs(0.5), n=100)


@pytest.mark.parametrize("sigma", [0.5, lambda x: 0.1 + x.norm(), Gaussian(0.5), None])
def test_a_rule_without_a_proven_bound_is_refused(sigma):
    with pytest.raises(ArgumentError, match="Sukenik"):
        InputDependent(half_space, sigma, 2)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"sigma": v} for v in (0.0, -0.5, float("nan"), "1")),
        *({"r": v} for v in (-0.01, float("nan"), float("inf"), None)),
        *({"k": v} for v in (0, 41, 1.5)),
        *({"distance": v} for v in (-1.0, float("nan"))),
    ],
)
def test_bad_numbers(wrong):
    with pytest.raises(ArgumentError):
        rule(**wrong)


@pytest.mark.parametrize(
    "points",
    [
        torch.zeros(4),
        torch.zeros(0, 3),
        torch.zeros(2, 3).long(),
        torch.full((2, 3), torch.nan),
        [[0.0]],
    ],
)
def test_bad_points(points):
    with pytest.raises(ArgumentError):
        NearestPoints(points, sigma=0.5, r=0.1)


def test_bad_inputs():
    own = InputDependent(half_space, rule(), 2)
    with pytest.raises(ArgumentError, match="points have shape"):
        own.certify(torch.zeros(1, 4, 4), n=100)
    with pytest.raises(ArgumentError):
        own.certify(torch.full((1, *SHAPE), torch.nan), n=100)
    for wrong in ({"n0": 200, "n": 100}, {"alpha": 1.0}, {"ids": [1]}):
        with pytest.raises(ArgumentError):
            own.certify(inputs(0.1, 0.2), **({"n0": 10, "n": 100} | wrong))
    with pytest.raises(ModelError, match="training"):
        InputDependent(torch.nn.Linear(2, 2), rule(), 2)
