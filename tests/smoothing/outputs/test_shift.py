"""Shift bounds: attained by half spaces, the inverse of each other, and those of the noise's radius."""

import numpy as np
import pytest
import torch
from scipy import stats

from certus.core import ArgumentError
from certus.smoothing import Gaussian
from certus.smoothing.noise import (
    Ablation,
    AnisotropicGaussian,
    IntegerGaussian,
    Laplace,
    Uniform,
)
from certus.smoothing.outputs.shift import shift_of

LAWS = [
    (Gaussian(0.5), stats.norm(0, 0.5)),
    (IntegerGaussian(0.5), stats.norm(0, 0.5)),
    (AnisotropicGaussian(torch.tensor([0.9, 0.3], dtype=torch.float64)), stats.norm(0, 0.3)),
    (Laplace(0.4), stats.laplace(0, 0.4)),
    (Uniform(0.8), stats.uniform(-0.8, 1.6)),
]
NAMES = [type(noise).__name__ for noise, _ in LAWS]


@pytest.mark.parametrize(("noise", "law"), LAWS, ids=NAMES)
@pytest.mark.parametrize("radius", [0.0, 0.1, 0.7])
def test_an_event_that_is_shifted_along_an_axis_moves_by_no_more_and_one_attains_it(
    noise, law, radius
):
    shift, p = shift_of(noise), np.linspace(0.002, 0.998, 97)
    bound = np.array([shift.most(v, radius) for v in p])
    t = law.ppf(p)
    assert (law.cdf(t + radius) <= bound).all()
    # the density of Laplace noise falls in a tail: only events with p >= 1/2 lose at the full rate
    tight = np.maximum(law.cdf(t + radius), law.cdf(radius - law.isf(p)))
    assert bound == pytest.approx(tight, abs=1e-9)
    narrow = np.maximum(
        0,
        np.diff(
            law.cdf(
                np.stack([t - 0.2, t]),
            ),
            axis=0,
        )[0],
    )
    for v, low in zip(narrow, t, strict=True):  # strips are events too
        if 0 < v < 1:
            for step in (-radius, radius):
                moved = law.cdf(low + step) - law.cdf(low - 0.2 + step)
                assert moved <= shift.most(float(v), radius) + 1e-12


@pytest.mark.parametrize(("noise", "law"), LAWS, ids=NAMES)
def test_reach_inverts_most_and_is_the_radius_of_the_noise(noise, law):
    shift, lower = shift_of(noise), np.linspace(0.5001, 0.9999, 60)
    assert shift.reach(lower, 0.5) == pytest.approx(noise.radius(lower), rel=1e-9)
    for p in (0.2, 0.5, 0.9):
        reached = shift.reach(lower, p)
        assert (reached[lower <= p] == 0).all()
        for low, r in zip(lower[lower > p], reached[lower > p], strict=True):
            assert shift.most(p, float(r) * (1 - 1e-9)) <= low * (1 + 1e-11)
            assert shift.most(p, float(r) * (1 + 1e-9) + 1e-9) > low


def test_most_is_a_probability():
    for noise, _ in LAWS:
        shift = shift_of(noise)
        assert shift.most(0.5, 100.0) == 1.0
        assert shift.most(0.5, 0.0) == pytest.approx(0.5, rel=1e-11)
        assert shift.most(0.5, 0.0) > 0.5


def test_noise_without_a_bound_is_refused():
    class Other(Gaussian):
        """A law of its own, perhaps."""

    with pytest.raises(ArgumentError, match="Laplace, Uniform"):
        shift_of(Other(1.0))
    with pytest.raises(ArgumentError, match="Laplace, Uniform"):
        shift_of(Ablation(3, 5))
