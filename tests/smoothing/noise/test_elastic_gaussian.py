"""Gaussian noise with a deviation for every input: masses, the worst deviation, the radius."""

import itertools

import mpmath as mp
import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import ncx2
from tests.smoothing.noise.worst_case import least, product, separated

from certus.core import ArgumentError
from certus.smoothing import Gaussian
from certus.smoothing.noise import ElasticGaussian, balls, elastic_gaussian
from certus.smoothing.noise.balls import mass
from certus.smoothing.noise.elastic_gaussian import _outside

LOWER = np.array([0.6, 0.9, 0.9999])
CASES = [(1, 1.0), (2, 0.4), (5, 0.3), (50, 0.1), (784, 0.02), (784, 0.5), (150_528, 1e-3)]


def inverted(size, bend, level):
    """The mass by Gil-Pelaez' inversion of the characteristic function of z_1 + bend |z|^2."""
    spread = np.sqrt(1 + 2 * bend * bend * size)
    t = (np.arange(4000) + 0.5) * 0.02 / spread
    log = -size / 2 * np.log(1 - 2j * bend * t) - t * t / 2 / (1 - 2j * bend * t) - 1j * t * level
    return 0.5 - (np.exp(log).imag / (np.arange(4000) + 0.5)).sum() / np.pi


@pytest.mark.parametrize("size", [50, 784, 3072, 150_528])
@pytest.mark.parametrize("bend", [1e-9, 1e-4, 0.003, 0.05, 0.4, -1e-6, -0.003, -0.05])
def test_masses_against_the_characteristic_function(size, bend):
    spread = np.sqrt(1 + 2 * bend * bend * size)
    for place in (-3, -1, 0, 0.5, 2):
        level = bend * size + place * spread
        assert mass(size, bend, level) == pytest.approx(inverted(size, bend, level), abs=2e-12)
        assert mass(size, bend, level, 32) == pytest.approx(mass(size, bend, level), abs=2e-13)


@pytest.mark.parametrize("size", [1, 2, 3, 10, 784, 150_528])
@pytest.mark.parametrize("bend", [0.004, 0.03, 0.3, 2.0, -0.004, -0.3, -2.0])
def test_masses_against_the_non_central_chi_squared_law(size, bend):
    spread = np.sqrt(1 + 2 * bend * bend * size)
    for place in (-2, -0.4, 0, 1, 3):
        level = bend * size + place * spread
        squared, offset = level / bend + 1 / (4 * bend * bend), 1 / (4 * bend * bend)
        inside = float(ncx2.cdf(squared, size, offset)) if squared > 0 else 0.0
        exact = inside if bend > 0 else 1 - inside
        assert mass(size, bend, level) == pytest.approx(exact, abs=1e-12)


def test_masses_against_high_precision():
    with mp.workdps(25):
        for size, bend, level in ((2, 0.3, 1.0), (784, 0.2, 150.0)):
            b, half = mp.mpf(bend), mp.mpf(size - 1) / 2
            centre = -1 / (2 * b)
            radius = mp.sqrt(level / b + centre**2)

            def cut(y, b=b, half=half, level=level):
                room = max(mp.mpf(0), (level - y - b * y * y) / b / 2)
                return mp.npdf(y) * mp.gammainc(half, 0, room, regularized=True)

            ends = [max(centre - radius, -9), *range(-8, 9, 4), min(centre + radius, 9)]
            exact = mp.quad(cut, sorted(e for e in ends if abs(e - centre) <= radius))
            assert mass(size, bend, level) == pytest.approx(float(exact), abs=1e-14)


def test_without_elasticity_it_is_gaussian_noise():
    upper = np.array([0.4, 0.02, 1e-6])
    noise = ElasticGaussian(0.7, 0.0, 784)
    assert np.array_equal(noise.radius(LOWER), Gaussian(0.7).radius(LOWER))
    assert np.array_equal(noise.radius(LOWER, upper), Gaussian(0.7).radius(LOWER, upper))
    assert noise.radius(LOWER) == pytest.approx(0.7 * ndtri(LOWER), rel=1e-9)
    assert noise.threshold(0.5) == Gaussian(0.7).threshold(0.5)
    for r in (1e-200, 1e-30, 1e-9):  # and little of it changes little
        near = ElasticGaussian(0.7, r, 784).radius(LOWER)
        assert near == pytest.approx(0.7 * ndtri(LOWER), rel=2e-7)
        assert (near <= 0.7 * ndtri(LOWER)).all()


def cells(mean, deviation, edges):
    """Masses of a normal law between the edges."""
    return np.diff(ndtr((np.concatenate([[-np.inf], edges, [np.inf]]) - mean) / deviation))


def laws(noise, distance, deviation, count):
    """Both laws on cells of a line or a plane."""
    edges = np.linspace(-7, 7, count) * noise.sigma
    here, there = cells(0, noise.sigma, edges), cells(distance, deviation, edges)
    if noise.size == 1:
        return here, there
    return product(here, here), product(there, cells(0, deviation, edges))


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("r", [0.2, 1.5])
@pytest.mark.parametrize("lower", [0.6, 0.97])
def test_no_event_of_cells_falls_to_one_half_within_the_radius(size, r, lower):
    """Neyman and Pearson's lemma on a grid, all distances, all deviations; and 1/2 at the radius itself."""
    noise = ElasticGaussian(0.8, r, size)
    radius = float(noise.radius(lower))
    count = 4001 if size == 1 else 301
    for distance in np.array([0.2, 0.6, 0.95, 1.0]) * radius:
        found = [
            least(*laws(noise, distance, noise.sigma * np.exp(r * distance * share), count), lower)
            for share in (-1, -0.9, -0.5, -0.1, 0.1, 0.5, 0.9, 1)
        ]
        assert min(found) >= 0.5
        assert min(found) in (found[0], found[-1]) or distance < radius, "the ends are the worst"
    assert min(found) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("lean", [-1.2, -0.3, 0.2, 0.9])
@pytest.mark.parametrize("step", [0.3, 1.1])
def test_the_mass_that_is_demanded_leaves_one_half(size, lean, step):
    """Each deviation by itself, also those below sigma, which the others outdo."""
    lower = 1 - _outside(size, step, lean, 16)
    count = 8001 if size == 1 else 401
    found = least(*laws(ElasticGaussian(1.0, 0.1, size), step, np.exp(lean), count), lower)
    assert 0.5 <= found < 0.5 + 2e-3


def test_sampled_classifiers_never_break_it():
    rng = np.random.default_rng(1)
    noise = ElasticGaussian(1.0, 0.8, 1)
    for _ in range(120):
        edges = np.sort(rng.normal(size=rng.integers(2, 8)) * 1.5)
        side = np.arange(len(edges) + 1) % 2 == rng.integers(2)
        lower = float(cells(0, 1, edges)[side].sum())
        radius = float(noise.radius(lower))
        for share, way, lean in itertools.product((0.3, 0.999), (-1, 1), (-1, -0.4, 0.4, 1)):
            distance = share * radius
            there = cells(way * distance, np.exp(lean * noise.r * distance), edges)
            assert lower <= 0.5 or there[side].sum() >= 0.5


@pytest.mark.parametrize("lower", [0.55, 0.9, 0.999])
@pytest.mark.parametrize("bound", [0.5, 0.1, 0.01])
def test_another_class_never_catches_up(lower, bound):
    upper = (1 - lower) * bound
    noise = ElasticGaussian(0.8, 0.4, 1)
    radius = float(noise.radius(lower, upper))
    assert radius > float(noise.radius(lower))
    assert radius <= float(Gaussian(0.8).radius(lower, upper))
    for share, lean in itertools.product((0.4, 1.0), (-1, -0.5, 0.5, 1)):
        distance = share * radius
        pair = laws(noise, distance, 0.8 * np.exp(lean * 0.4 * distance), 4001)
        assert separated(*pair, lower, upper) >= 0


@pytest.mark.parametrize(("size", "r"), CASES)
@pytest.mark.parametrize("lower", LOWER)
def test_the_ends_at_the_radius_are_the_worst(size, r, lower):
    """Every nearer point with every deviation that the rule allows there demands less of pA."""
    noise = ElasticGaussian(0.6, r, size)
    radius = float(noise.radius(lower))
    assert 0 < radius < noise.sigma * ndtri(lower)
    assert noise.outside(radius) > 1 - lower
    assert noise.outside(radius * (1 + 1e-6)) < (1 - lower) * (1 + 1e-9)
    for share, lean in itertools.product((0.1, 0.5, 0.9, 0.999), (-1, -0.8, -0.3, 0.01, 0.3, 0.8)):
        distance = share * radius
        found = _outside(size, distance / noise.sigma, lean * r * distance, 16)
        assert found > 1 - lower


@pytest.mark.parametrize(("size", "r"), [(50, 0.15), (784, 0.02)])
@pytest.mark.parametrize("lower", [0.7, 0.97])
def test_the_worst_event_by_sampling(size, r, lower):
    """The likelihood ratio of draws: at the radius 1/2 is left, with the worse of the two deviations."""
    noise, draws = ElasticGaussian(0.5, r, size), 400_000
    radius = float(noise.radius(lower))
    rng = np.random.default_rng(2)
    along, beside = rng.standard_normal(draws), rng.chisquare(size - 1, draws)

    def left(distance, lean):
        step, q = distance / noise.sigma, np.exp(lean * r * distance)

        def ratio(first, others):  # log p1 / p0, but for a constant
            return ((first**2 + others) - ((first - step) ** 2 + others) / q**2) / 2

        level = np.quantile(ratio(along, beside), lower)
        return (ratio(step + q * along, q * q * beside) <= level).mean()

    assert min(left(radius, 1), left(radius, -1)) == pytest.approx(0.5, abs=0.006)
    assert min(left(1.1 * radius, 1), left(1.1 * radius, -1)) < 0.5 - 0.01
    assert min(left(0.9 * radius, 1), left(0.9 * radius, -1)) > 0.5 + 0.01
    assert min(left(noise.sigma * ndtri(lower), lean) for lean in (1, -1)) < 0.49, "uncorrected"


def test_it_grows_with_the_probability_and_falls_with_elasticity_and_size():
    grid = [
        [ElasticGaussian(0.5, r, size, 1e-7).radius(LOWER) for size in (1, 10, 784, 150_528)]
        for r in (1e-4, 0.01, 1.0)
    ]
    found = np.array(grid)
    assert (np.diff(found, axis=2) > 0).all()
    assert (np.diff(found, axis=0) < 1e-8).all()
    assert (np.diff(found, axis=1)[1:] < 0).all()
    wide = ElasticGaussian(0.5, 0.01, 784, 1e-4).radius(LOWER)
    assert (wide < ElasticGaussian(0.5, 0.01, 784, 1e-7).radius(LOWER)).all()
    # Lengths have no unit of their own.
    assert ElasticGaussian(5.0, 0.001, 784).radius(LOWER) == pytest.approx(
        10 * ElasticGaussian(0.5, 0.01, 784).radius(LOWER), rel=1e-7
    )


def test_what_cannot_be_computed_proves_nothing(monkeypatch):
    assert (ElasticGaussian(1.0, 1e6, 784).radius(LOWER) < 1e-5).all()
    assert (ElasticGaussian(1.0, 0.0, 784, 60.0).radius(LOWER) == 0).all()
    assert (ElasticGaussian(1.0, 0.0, 784, 5.0).radius(LOWER) == 0).all()
    rough = ElasticGaussian(0.77, 0.01, 784)
    monkeypatch.setattr(
        elastic_gaussian, "mass", lambda *a: balls.mass(*a) + 1e-10 * (a[3] == balls.PANELS)
    )
    assert (rough.radius(LOWER) == 0).all()


@pytest.mark.parametrize(
    "wrong",
    [
        *({"sigma": v} for v in (0.0, -1.0, float("nan"), "1", None)),
        *({"r": v} for v in (-0.1, float("nan"), float("inf"), "1", None)),
        *({"size": v} for v in (0, 1.5, True)),
        *({"rounding": v} for v in (-1e-9, float("nan"))),
    ],
)
def test_bad_arguments(wrong):
    with pytest.raises(ArgumentError):
        ElasticGaussian(**({"sigma": 0.5, "r": 0.01, "size": 4} | wrong))
