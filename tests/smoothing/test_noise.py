"""Noise: draws have the distribution that the radius is proven for."""

import mpmath
import numpy as np
import pytest
import torch

from certus.core import ArgumentError
from certus.core.random import generator
from certus.smoothing import Gaussian, Noise


def test_gaussian_moments_and_tails():
    draws = Gaussian(0.5).sample((200_000,), generator(0, 1), torch.float64)
    assert draws.dtype == torch.float64
    assert abs(float(draws.mean())) < 0.005
    assert float(draws.std()) == pytest.approx(0.5, rel=0.01)
    assert float((draws > 0.5).double().mean()) == pytest.approx(0.158655, abs=0.004)


def test_fill_equals_sample_and_follows_the_generator():
    noise, out = Gaussian(2.0), torch.empty(5, 7)
    noise.fill(out, generator(3))
    assert torch.equal(out, noise.sample((5, 7), generator(3)))
    assert not torch.equal(out, noise.sample((5, 7), generator(4)))


def test_gaussian_radius():
    p = np.array([[0.0, 0.3], [0.5, 0.500001], [0.9, 0.9999]])
    radius = Gaussian(0.25).radius(p)
    assert radius.shape == p.shape
    assert radius.dtype == np.float64
    assert (radius[:1] == 0).all()
    assert radius[1, 0] == 0
    for probability, found in zip(p.flat[3:], radius.flat[3:], strict=True):
        exact = mpmath.mpf(0.25) * mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(probability) - 1)
        assert found == pytest.approx(float(exact), rel=1e-9)
    assert Gaussian(0.25).radius(0.8) == pytest.approx(0.2104053, abs=1e-6)


@pytest.mark.parametrize("sigma", [0, 0.0, -1.0, float("nan"), float("inf"), "1"])
def test_bad_sigma(sigma):
    with pytest.raises(ArgumentError, match="sigma"):
        Gaussian(sigma)


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan"), np.array([0.6, np.nan])])
def test_bad_probability(probability):
    with pytest.raises(ArgumentError):
        Gaussian(1.0).radius(probability)


def test_noise_is_abstract_and_frozen():
    with pytest.raises(TypeError, match="abstract"):
        Noise()
    with pytest.raises(AttributeError):
        Gaussian(1.0).sigma = 2.0
