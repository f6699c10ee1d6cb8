"""Laws that hold for every additive noise: its radius as a function of probabilities, its draws."""

import numpy as np
import pytest
import torch

from certus.core import ArgumentError
from certus.core.random import generator
from certus.smoothing.noise import (
    AnisotropicGaussian,
    ElasticGaussian,
    Gaussian,
    GeneralGaussian,
    IntegerGaussian,
    Laplace,
    Truncated,
    Uniform,
)

NOISES = [
    Laplace(0.5),
    Uniform(0.5),
    AnisotropicGaussian(torch.tensor([[0.2, 0.5, 1.0]])),
    IntegerGaussian(0.5),
    GeneralGaussian(0.5, 5, 16),
    GeneralGaussian(0.5, 60, 128),
    ElasticGaussian(0.5, 0.1, 16, 1e-7),
]
DRAWN = [*NOISES, Truncated(GeneralGaussian(0.5, 5, 16), 0.7)]


def exact_to(noise) -> float:
    """Relative accuracy of the radius: a closed form, or quadrature."""
    return 1e-6 if isinstance(noise, GeneralGaussian | ElasticGaussian) else 1e-13


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_the_radius_grows_with_the_gap(noise):
    lower = np.array([0.3, 0.5, 0.6, 0.9, 0.9999])
    upper = np.array([1e-6, 0.1, 0.4])
    found = noise.radius(lower[:, None], upper[None])
    assert found.shape == (5, 3)
    assert found.dtype == np.float64
    room = 2 * exact_to(noise) * found.max()
    assert (np.diff(found, axis=0) >= -room).all()
    assert (np.diff(found, axis=1) <= room).all()
    assert (found[lower[:, None] <= upper[None]] == 0).all()
    assert (found[lower[:, None] > upper[None]] > 0).all()


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_one_sided_and_two_sided_agree(noise):
    lower = np.array([0.5001, 0.75, 0.999])
    assert np.array_equal(noise.radius(lower), noise.radius(lower, 1 - lower))
    assert (noise.radius(lower, (1 - lower) / 2) > noise.radius(lower)).all()
    assert (noise.radius(np.array([0.0, 0.3, 0.5])) == 0).all()


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_certain_classes(noise):
    """pA = 1 and pB = 0: infinite, or for bounded noise the distance that halves the overlap."""
    found = noise.radius(np.array([1.0, 0.6]), np.array([0.0, 0.0]))
    if isinstance(noise, Uniform):
        assert found == pytest.approx([0.5, 0.3])
    else:
        assert (found == np.inf).all()


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_threshold_is_where_the_radius_is_reached(noise):
    for radius in (0.1, 0.3):
        p = noise.threshold(radius)
        assert float(noise.radius(p)) >= radius
        assert float(noise.radius(p - 1e-6)) < radius
    assert Uniform(0.25).threshold(0.26) == np.inf


@pytest.mark.parametrize("noise", DRAWN, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_follow_the_generator_and_have_the_stated_size(noise, dtype):
    size = getattr(getattr(noise, "whole", noise), "size", 3)
    first = noise.sample((2000, 1, size), generator(3), dtype)
    assert first.dtype == dtype
    assert torch.equal(first, noise.sample((2000, 1, size), generator(3), dtype))
    assert not torch.equal(first, noise.sample((2000, 1, size), generator(4), dtype))
    assert bool(torch.isfinite(first).all())
    flat = first.double().flatten(1)
    assert float(flat.mean()) == pytest.approx(0, abs=5 * float(flat.std()) / flat.numel() ** 0.5)
    signs = (flat > 0).double().mean(1)
    assert float(signs.std()) > 0.5 / size**0.5 * 0.8  # signs of values are independent


@pytest.mark.parametrize("kind", [Gaussian, Laplace, Uniform, IntegerGaussian])
@pytest.mark.parametrize("scale", [0, 0.0, -1.0, float("nan"), float("inf"), "1", None])
def test_bad_scales(kind, scale):
    with pytest.raises(ArgumentError):
        kind(scale)


@pytest.mark.parametrize("noise", NOISES, ids=repr)
@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_bad_probabilities(noise, p):
    with pytest.raises(ArgumentError, match="probability"):
        noise.radius(p)
