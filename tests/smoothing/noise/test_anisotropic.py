"""Anisotropic Gaussian noise: its ellipsoid and the ball inside it."""

import math

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from scipy.stats import kstest, norm

from certus.core import ArgumentError
from certus.core.random import generator
from certus.smoothing import Gaussian
from certus.smoothing.noise import AnisotropicGaussian

SIGMA = torch.tensor([[0.25, 0.5], [1.0, 2.0]])
NOISE = AnisotropicGaussian(SIGMA)


def test_every_value_has_its_own_deviation():
    draws = NOISE.sample((40_000, 2, 2), generator(2), torch.float64)
    for row in range(2):
        for column in range(2):
            own = draws[:, row, column].numpy()
            assert kstest(own, norm(scale=float(SIGMA[row, column])).cdf).pvalue > 1e-3
    flat = (draws / SIGMA.double()).flatten(1)
    assert torch.allclose(flat.T @ flat / len(flat), torch.eye(4).double(), atol=0.03)


def test_equal_deviations_are_gaussian_noise():
    same = AnisotropicGaussian(torch.full((3,), 0.25))
    p, q = np.array([0.6, 0.9, 0.9999]), np.array([0.3, 0.1, 1e-5])
    assert same.radius(p, q) == pytest.approx(Gaussian(0.25).radius(p, q), rel=1e-12)
    assert same.mahalanobis(p, q) == pytest.approx(Gaussian(1.0).radius(p, q), rel=1e-12)
    assert same.proxy(p, q, size=6) == pytest.approx(Gaussian(0.25).radius(p, q), rel=1e-11)


@pytest.mark.parametrize("p", [0.6, 0.9, 0.999])
def test_a_half_space_touches_the_ellipsoid(p):
    """Half-spaces of probability p in every direction: none comes nearer than the certificate."""
    drawn = torch.randn(500, 4, generator=generator(4), dtype=torch.float64)
    weights = torch.cat([drawn, torch.eye(4, dtype=torch.float64)])
    sigma = SIGMA.double().flatten()
    offset = float(norm.ppf(p)) * (weights * sigma).norm(dim=1)  # <w, z> <= offset has p
    assert ndtr(float(offset[0] / (weights[0] * sigma).norm())) == pytest.approx(p)
    # The nearest point in the norm |d / sigma| and the nearest one in L2.
    direction = weights * sigma**2
    nearest = direction * (offset / (weights * direction).sum(1))[:, None]
    inside = NOISE.distance(nearest.view(-1, 2, 2)).numpy()
    assert inside.min() >= float(NOISE.mahalanobis(p))
    assert inside == pytest.approx(float(NOISE.mahalanobis(p)), rel=1e-9)
    straight = (offset / weights.norm(dim=1)).numpy()
    assert straight.min() >= float(NOISE.radius(p))
    assert straight.min() == pytest.approx(float(NOISE.radius(p)), rel=1e-9)


def test_volumes():
    radius = float(NOISE.mahalanobis(0.9))
    mean = (0.25 * 0.5 * 1.0 * 2.0) ** 0.25
    assert float(NOISE.proxy(0.9, size=4)) == pytest.approx(radius * mean, rel=1e-9)
    volume = math.pi**2 / 2 * radius**4 * (0.25 * 0.5 * 1.0 * 2.0)
    assert float(NOISE.log_volume(0.9, size=4)) == pytest.approx(math.log(volume), rel=1e-9)
    assert float(NOISE.log_volume(0.4, size=4)) == -math.inf
    with pytest.raises(ArgumentError, match="4 entries"):
        NOISE.proxy(0.9, size=6)


def test_deviations_fit_the_input():
    NOISE.check(torch.zeros(5, 3, 2, 2))
    AnisotropicGaussian(torch.ones(3, 1, 1)).check(torch.zeros(5, 3, 2, 2))
    for shape in ((5, 3, 2, 4), (5, 2), (5, 2, 1)):
        with pytest.raises(ArgumentError, match="does not fit"):
            NOISE.check(torch.zeros(shape))
    sigma = torch.ones(2)
    noise = AnisotropicGaussian(sigma)
    sigma[0] = -1.0
    assert bool((noise.sigma > 0).all()), "a tensor that is changed later must not change the noise"
    assert "least=1" in repr(noise)


@pytest.mark.parametrize(
    "sigma", [torch.tensor([1.0, 0.0]), torch.tensor([1.0, float("nan")]), torch.empty(0), 0.5]
)
def test_bad_deviations(sigma):
    with pytest.raises(ArgumentError, match="sigma"):
        AnisotropicGaussian(sigma)


def test_another_arrangement_of_the_same_deviations_has_another_name():
    """A ledger tells configurations apart by what they print."""
    assert repr(NOISE) == repr(AnisotropicGaussian(SIGMA.double()))
    assert repr(NOISE) != repr(AnisotropicGaussian(SIGMA.T))
