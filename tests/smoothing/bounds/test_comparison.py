"""Every proof is sound, Neyman and Pearson's is the largest, and closed forms agree with the papers."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.special import ndtr
from scipy.stats import laplace, norm
from tests.smoothing.noise.worst_case import separated

from certus.core import ArgumentError
from certus.smoothing.bounds import GAUSSIAN, LAPLACE
from certus.smoothing.bounds.divergences import FAMILIES

PAIRS = [(0.99, 0.01), (0.9, 0.1), (0.9, 0.03), (0.6, 0.4), (0.6, 0.2), (0.4, 0.1), (0.35, 0.34)]
TABLES = {"gaussian": (GAUSSIAN, norm()), "laplace": (LAPLACE, laplace())}


@pytest.mark.parametrize("noise", TABLES)
@pytest.mark.parametrize(("top", "other"), PAIRS)
def test_neyman_pearson_is_the_largest(noise, top, other):
    table, _ = TABLES[noise]
    found = {name: bound(top, other, 1.0) for name, bound in table.items()}
    assert min(found.values()) >= 0
    assert max(found.values()) <= found["neyman-pearson"] * (1 + 1e-12)
    family = [found[name] for name in ("hellinger", "kl", "chi-squared")]
    assert max(family) <= found["renyi"]
    assert found["total variation"] <= found["hockey-stick"] * (1 + 1e-9)


@pytest.mark.parametrize("noise", TABLES)
@pytest.mark.parametrize(("top", "other"), PAIRS)
def test_no_event_breaks_any_of_them(noise, top, other):
    """All events at once, by Neyman and Pearson's lemma over cells of the line."""
    table, law = TABLES[noise]
    edges = np.arange(-14, 14.001, 0.004)
    here = np.diff(law.cdf(edges))
    for name, bound in table.items():
        there = np.diff(law.cdf(edges - bound(top, other, 1.0)))
        assert separated(here, there, top, other) > -1e-4, name


@pytest.mark.parametrize("noise", TABLES)
def test_the_order_of_the_published_comparison(noise):
    """Differential privacy < f-divergence < Neyman-Pearson for Gaussian noise where pB = 1 - pA."""
    table, _ = TABLES[noise]
    for p in (0.7, 0.9, 0.99, 0.999):
        private, spread, tight = (
            table[name](p, 1 - p, 1.0)
            for name in ("differential privacy", "renyi", "neyman-pearson")
        )
        assert private < spread <= tight * (1 + 1e-12)
        # The hockey stick of the best factor is the dual of Neyman and Pearson's program.
        assert table["hockey-stick"](p, 1 - p, 1.0) == pytest.approx(tight, rel=1e-3)


@pytest.mark.parametrize("noise", TABLES)
def test_scale_and_ties(noise):
    table, _ = TABLES[noise]
    for name, bound in table.items():
        assert bound(0.9, 0.05, 0.25) == pytest.approx(bound(0.9, 0.05, 1.0) / 4), name
        assert bound(0.3, 0.3, 1.0) == 0
        assert bound(0.9, 0.0, 1.0) > bound(0.9, 0.1, 1.0) * (1 - 1e-12), name


def generator_of(name: str, order: float):
    """D(Q, P) of numbers q and p, as in its definition: sum p f(q / p)."""
    return {
        "kl": lambda q, p: q * np.log(q / p),
        "chi-squared": lambda q, p: q * q / p - p,
        "hellinger": lambda q, p: p - np.sqrt(q * p),
        "total variation": lambda q, p: np.maximum(q - p, 0),
        "hockey-stick": lambda q, p: np.maximum(q - order * p, 0) - max(0, 1 - order) * p,
    }[name]


def as_listed(name: str, value: float) -> float:
    """The function of the divergence that FAMILIES holds."""
    if name == "chi-squared":
        return math.log(1 + value)
    return -2 * math.log(1 - value) if name == "hellinger" else value


CASES = [("kl", 1.0), ("chi-squared", 2.0), ("hellinger", 0.5), ("total variation", 1.0)]
CASES += [("hockey-stick", 3.0), ("hockey-stick", 0.4)]


@pytest.mark.parametrize(("name", "order"), CASES)
@pytest.mark.parametrize("r", [0.3, 1.0, 2.5])
def test_distances_of_the_noise_by_integration(name, order, r):
    term, family = generator_of(name, order), FAMILIES[name]
    for law, listed in ((norm, family.gaussian), (laplace, family.laplace)):
        places = [0.0, r, r / 2 + math.log(order) / r, (r + math.log(order)) / 2]
        value, _ = quad(
            lambda t, law=law: term(law.pdf(t - r), law.pdf(t)), -25, 25, points=places, limit=400
        )
        assert listed(r, order) == pytest.approx(as_listed(name, value), abs=1e-7)


@pytest.mark.parametrize(("name", "order"), CASES)
@pytest.mark.parametrize(("top", "other"), [(0.9, 0.03), (0.6, 0.2), (0.4, 0.1)])
def test_distances_to_a_tie_by_search(name, order, top, other):
    term, family = generator_of(name, order), FAMILIES[name]
    p = np.array([top, other, 1 - top - other])

    def distance(q):
        return float(term(np.array([q, q, 1 - 2 * q]), p).sum())

    grid = np.linspace(1e-6, 0.5 - 1e-6, 2001)
    start = min(grid, key=distance)
    found = minimize(
        lambda v: distance(min(0.5 - 1e-9, max(1e-9, v[0]))),
        [start],
        method="Nelder-Mead",
        options={"xatol": 1e-10, "fatol": 1e-13},
    )
    least = as_listed(name, min(distance(start), float(found.fun)))
    assert family.tie(top, other, order) == pytest.approx(least, abs=1e-7)
    # Probabilities that are not tied yet are nearer: the tie is what has to be reached.
    assert family.tie(top, other, order) <= family.tie(top + 1e-3, other, order) + 1e-9


def test_renyi_is_that_of_li_et_al():
    """Theorem 1: sigma sqrt(sup_t -2 / t ln(1 - pA - pB + 2 M)), and for L1 -scale ln(1 - pA + pB)."""
    top, other = 0.8, 0.1
    t = np.linspace(1.001, 60, 20_000)
    mean = ((top ** (1 - t) + other ** (1 - t)) / 2) ** (1 / (1 - t))
    published = math.sqrt(float((-2 / t * np.log(1 - top - other + 2 * mean)).max()))
    assert GAUSSIAN["renyi"](top, other, 1.0) == pytest.approx(published, rel=2e-4)
    assert LAPLACE["renyi"](top, other, 1.0) >= -math.log(1 - top + other) * (1 - 1e-12)


def test_differential_privacy_is_that_of_lecuyer_et_al():
    """The best pair (epsilon, delta) satisfies pA > e^(2 epsilon) pB + (1 + e^epsilon) delta."""
    radius = GAUSSIAN["differential privacy"](0.9, 0.1, 1.0)
    epsilon = np.linspace(0.001, 1, 5000)
    delta = 1.25 * np.exp(-((epsilon / radius) ** 2) / 2)
    slack = 0.9 - np.exp(2 * epsilon) * 0.1 - (1 + np.exp(epsilon)) * delta
    assert slack.max() == pytest.approx(0, abs=1e-5)
    assert LAPLACE["differential privacy"](0.9, 0.1, 2.0) == pytest.approx(math.log(9))
    assert ndtr(radius) < 0.9


@pytest.mark.parametrize(
    "bad", [(1.1, 0.0, 1.0), (0.9, 0.2, 1.0), (0.9, -0.1, 1.0), (0.9, 0.1, 0.0)]
)
def test_bad_arguments(bad):
    for bound in GAUSSIAN.values():
        with pytest.raises(ArgumentError):
            bound(*bad)
