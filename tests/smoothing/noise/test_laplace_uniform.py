"""Laplace and uniform noise: draws, radii against brute force over all events, tightness."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest, laplace, uniform
from tests.smoothing.noise.worst_case import product, separated

from certus.core import ArgumentError
from certus.core.random import generator
from certus.smoothing.noise import Laplace, Uniform, converted

PAIRS = [(0.9, 0.1), (0.9, 0.01), (0.6, 0.4), (0.55, 0.3), (0.4, 0.1), (0.3, 0.29)]
NOISES = [(Laplace(1.0), laplace()), (Uniform(1.0), uniform(-1, 2))]


@pytest.mark.parametrize(("noise", "law"), NOISES, ids=lambda v: repr(v)[:12])
def test_draws_have_the_law(noise, law):
    draws = noise.sample((40_000, 2), generator(11), torch.float64)
    assert kstest(draws[:, 0].numpy(), law.cdf).pvalue > 1e-3
    assert float(draws.std()) == pytest.approx(law.std(), rel=0.02)
    assert float((draws[:, 0] * draws[:, 1]).mean()) == pytest.approx(0, abs=0.05)


def cells(law, shift: float, width: float = 12.0, step: float = 0.01) -> np.ndarray:
    """Masses of intervals of this length, around a shifted centre."""
    edges = np.arange(-width, width + step / 2, step)
    return np.diff(law.cdf(edges - shift))


@pytest.mark.parametrize(("lower", "upper"), PAIRS)
@pytest.mark.parametrize(("noise", "law"), NOISES, ids=lambda v: repr(v)[:12])
def test_along_an_axis_the_radius_is_exactly_where_the_worst_events_meet(noise, law, lower, upper):
    radius = float(noise.radius(lower, upper))
    here = cells(law, 0.0)
    assert separated(here, cells(law, radius * 0.99), lower, upper) > -1e-9
    assert separated(here, cells(law, radius * 1.03 + 0.02), lower, upper) < 0
    # Smaller shifts are covered too.
    for share in (0.1, 0.5, 0.8):
        assert separated(here, cells(law, radius * share), lower, upper) > 0


@pytest.mark.parametrize(("lower", "upper"), PAIRS)
@pytest.mark.parametrize(("noise", "law"), NOISES, ids=lambda v: repr(v)[:12])
def test_in_the_plane_no_direction_is_worse(noise, law, lower, upper):
    radius = float(noise.radius(lower, upper)) * 0.98
    parts = {"width": 9.0, "step": 0.05}
    line = cells(law, 0.0, **parts)
    here = product(line, line)
    for share in (0.1, 0.3, 0.5):
        there = product(
            cells(law, radius * share, **parts), cells(law, radius * (1 - share), **parts)
        )
        assert separated(here, there, lower, upper) > -1e-3


def test_laplace_is_never_below_the_published_forms():
    lower = np.linspace(0.02, 0.999, 60)[:, None]
    upper = np.minimum(lower * np.linspace(0.01, 0.99, 30)[None], 1 - lower)
    found = Laplace(2.0).radius(lower, upper)
    ratio, gap = np.log(lower / upper), -2 * np.log(1 - lower + upper)
    assert (found >= np.maximum(ratio, gap) - 1e-13).all()
    p = np.array([0.5001, 0.75, 0.99, 0.99993])
    assert Laplace(2.0).radius(p) == pytest.approx(-2 * np.log(2 * (1 - p)), rel=1e-12)


def test_uniform_published_forms():
    p = np.array([0.5001, 0.75, 0.99])
    assert Uniform(3.0).radius(p) == pytest.approx(6 * (p - 0.5), rel=1e-12)
    for size in (1, 10, 3072):
        published = 6 * (1 - (1.5 - p) ** (1 / size))
        found = Uniform(3.0).linf(p, size=size)
        assert found == pytest.approx(published, rel=1e-9)
        less = converted(Uniform(3.0).radius(p), "l1", "linf", size)
        assert (found >= less * (1 - 1e-12)).all()


@pytest.mark.parametrize("size", [1, 2, 5])
def test_uniform_linf_is_tight(size):
    """A shift of all values loses a share of the cube, all of which may be the top class'."""
    lower, upper = 0.8, 0.05
    radius = float(Uniform(1.0).linf(lower, upper, size=size))
    lost = 1 - (1 - radius / 2) ** size
    assert lower - lost == pytest.approx(upper + lost, abs=1e-12)
    assert lower - lost >= upper + lost - 1e-15
    with pytest.raises(ArgumentError, match="size"):
        Uniform(1.0).linf(0.9, size=0)


@pytest.mark.parametrize(("noise", "law"), NOISES, ids=lambda v: repr(v)[:12])
@pytest.mark.parametrize("p", [0.6, 0.8, 0.97])
def test_a_linear_classifier_has_no_point_of_another_class_within(noise, law, p):
    """Half-spaces at a known L1 distance: an axis attains the radius, other directions stay outside."""
    along = law.ppf(p)  # distance at which an axis' half-space has probability p
    assert float(noise.radius(p)) == pytest.approx(along, rel=1e-12)
    assert float(noise.radius(p)) <= along
    draws = noise.sample((200_000, 3), generator(5), torch.float64)
    weights = torch.tensor([1.0, 0.6, -0.3], dtype=torch.float64)
    distance = float((draws @ weights).quantile(p)) / float(weights.abs().max())
    assert float(noise.radius(p - 0.004)) < distance  # 4 deviations of the estimate


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_laplace_draws_are_quantiles_of_the_generators_own_numbers(dtype):
    """torch's exponential draws come from elsewhere on some processors (pytorch issue 132395)."""
    drawn = Laplace(0.7).sample((64, 5), generator(3), dtype)
    uniform = torch.empty((64, 5), dtype=torch.float64).uniform_(-1, 1, generator=generator(3))
    expected = laplace(scale=0.7).ppf((1 + uniform.numpy()) / 2)
    np.testing.assert_allclose(drawn.double().numpy(), expected, rtol=1e-6, atol=1e-9)


def test_laplace_draws_are_finite_at_the_end_of_the_uniform_range(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda self, *_, **__: self.fill_(-1.0))
    assert bool(torch.isfinite(Laplace(1.0).sample((1, 2), generator(0))).all())
