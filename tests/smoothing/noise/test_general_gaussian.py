"""Generalised Gaussian noise: draws, quadrature, the radius against sampling and stored figures."""

import csv

import mpmath as mp
import numpy as np
import pytest
import torch
from scipy.special import gammainc
from scipy.stats import kstest

from certus.core import ArgumentError
from certus.core.random import generator
from certus.smoothing import Gaussian
from certus.smoothing.noise import GeneralGaussian, Truncated, fitted_cut
from certus.smoothing.noise.isotropic import Event, Isotropic, Narrower

STORED = "reference_tables/dsrs_mnist_general_gaussian_k380_sigma1.csv"
NOISE = GeneralGaussian(1.0, 380, 784)


@pytest.mark.parametrize("noise", [GeneralGaussian(0.5, 5, 16), GeneralGaussian(0.5, 0, 16)])
def test_draws_have_the_law(noise):
    draws = noise.sample((20_000, 4, 4), generator(1), torch.float64).flatten(1)
    length = draws.norm(dim=1)
    squared = (length / noise.scale).square().numpy() / 2
    assert kstest(squared, lambda w: gammainc(8 - noise.k, w)).pvalue > 1e-3
    assert float(length.square().mean()) == pytest.approx(0.5**2 * 16, rel=0.02)
    # A uniform direction: the first value over the length has the law of `aligned`.
    cosine = (draws[:, 0] / length).numpy()
    assert kstest(cosine, noise.law.aligned).pvalue > 1e-3
    assert abs(np.corrcoef(np.abs(cosine), length.numpy())[0, 1]) < 0.03


@pytest.mark.parametrize("mass", [0.3, 0.9])
def test_truncated_draws_have_the_law(mass):
    whole = GeneralGaussian(0.5, 5, 16)
    noise = Truncated(whole, mass)
    draws = noise.sample((20_000, 16), generator(1), torch.float64)
    length = draws.norm(dim=1)
    assert float(length.max()) <= noise.limit * (1 + 1e-12)
    squared = (length / whole.scale).square().numpy() / 2
    assert kstest(squared, lambda w: gammainc(3, w) / mass).pvalue > 1e-3
    assert (noise.radius(np.array([0.9, 1.0])) == 0).all()


@pytest.mark.parametrize(("size", "accuracy"), [(16, 1e-6), (784, 3e-9), (150_528, 3e-9)])
def test_without_a_singularity_it_is_gaussian_noise(size, accuracy):
    lower, upper = np.array([0.51, 0.9, 0.99993, 0.4]), np.array([0.49, 0.1, 1e-5, 0.1])
    found = GeneralGaussian(0.25, 0, size).radius(lower, upper)
    exact = Gaussian(0.25).radius(lower, upper)
    assert (found <= exact).all()
    assert found == pytest.approx(exact, rel=2e-7 if size > 16 else 1e-4)
    assert found[1] == pytest.approx(exact[1], rel=accuracy)


@pytest.mark.parametrize("noise", [GeneralGaussian(1.0, 5, 16), NOISE], ids=repr)
@pytest.mark.parametrize("lower", [0.7, 0.97])
def test_the_worst_event_by_sampling(noise, lower):
    """The likelihood ratio of draws, in no more than the plain density: at the radius 1/2 is left."""
    radius, draws = float(noise.radius(lower)), 400_000
    rng = np.random.default_rng(3)
    length = noise.scale * np.sqrt(2 * rng.gamma(noise.size / 2 - noise.k, size=draws))
    half = (noise.size - 1) / 2
    along = length * (2 * rng.beta(half, half, size=draws) - 1)

    def density(squared):
        return -noise.k * np.log(squared) - squared / (2 * noise.scale**2)

    def left(shift):  # P(S - d) of S, the draws z with the least p(z - d) / p(z)
        ahead = length**2 + 2 * along * shift + shift**2  # |z + d|^2
        behind = length**2 - 2 * along * shift + shift**2
        level = np.quantile(density(behind) - density(length**2), lower)
        return (density(length**2) - density(ahead) <= level).mean()

    assert left(radius) == pytest.approx(0.5, abs=0.006)
    assert left(radius * 1.1) < 0.5 - 0.01
    assert left(radius * 0.9) > 0.5 + 0.01


def test_quadrature_against_high_precision():
    law, event = Isotropic(16, 5), Event(Isotropic(16, 5), 0.9, 0.7)
    half = mp.mpf(15) / 2

    def aligned(c):
        c = min(mp.mpf(1), max(mp.mpf(-1), c))
        return mp.betainc(half, half, 0, (1 + c) / 2, regularized=True)

    def outside(t):
        level = 5 * mp.log(t * t) + t * t - mp.mpf(0.7)
        near = 5 * mp.lambertw(mp.exp(level / 5) / 5).real
        cap = aligned((near - t * t - mp.mpf(0.9) ** 2) / (2 * mp.mpf(0.9) * t))
        return cap * 2 * t**5 * mp.exp(-t * t) / mp.gamma(3)

    with mp.workdps(20):
        exact = mp.quad(outside, list(np.linspace(0.01, 7, 15)))
    assert event.missed(128) == pytest.approx(float(exact), abs=1e-10)
    t, weight = law.lengths(64)
    assert weight @ t**2 == pytest.approx(3.0, rel=1e-13)


def test_a_bound_with_fixed_multipliers_falls_with_the_shift():
    """So that what is certified at one distance is certified at every smaller one."""
    second = Narrower(0.8, NOISE.law.shape)
    found = [
        Event(NOISE.law, shift, 1.6, 3.8, second).least(0.0116, 0.0018, 64)
        for shift in np.linspace(0.02, 0.4, 20)
    ]
    assert (np.diff(found) < 0).all()


def test_stored_radii(shared_data):
    with (shared_data / STORED).open() as file:
        rows = [row for row in csv.DictReader(file) if float(row["p_low"]) > 0.5][::25]
    lower = np.array([float(row["p_low"]) for row in rows])
    stored = np.array([float(row["np_radius"]) for row in rows])
    found = NOISE.radius(lower)
    assert found == pytest.approx(stored, abs=2e-5)
    assert np.median(np.abs(found - stored)) < 2e-6


def test_arguments():
    assert GeneralGaussian(2.0, 0, 2).scale == 2.0
    for bad in ((1.0, -1, 10), (1.0, 5, 10), (1.0, 0, 1), (0.0, 1, 10), (1.0, 1.5, 10)):
        with pytest.raises(ArgumentError):
            GeneralGaussian(*bad)
    with pytest.raises(ArgumentError, match="784 values"):
        NOISE.check(torch.zeros(2, 3, 32, 32))
    for bad in ((Gaussian(1.0), 0.5), (NOISE, 0.0), (NOISE, 1.0)):
        with pytest.raises(ArgumentError):
            Truncated(*bad)
    assert fitted_cut(NOISE, 0.99).mass == pytest.approx(0.6 + 0.08 * (np.log(100) - 5))
    assert fitted_cut(NOISE, 0.0).mass == pytest.approx(0.2)
    assert fitted_cut(NOISE, 1.0).mass == 0.95
