"""The radius from two laws: stored figures, and an exact program over cells that knows no duality."""

import csv
import math

import numpy as np
import pytest
from scipy.optimize import linprog

from certus.core import ArgumentError
from certus.smoothing.noise import Gaussian, GeneralGaussian, Truncated
from certus.smoothing.noise.doubled import doubled_radius

STORED = "reference_tables/dsrs_mnist_general_gaussian_k380_sigma1.csv"
NOISE = GeneralGaussian(1.0, 380, 784)
NARROW, INNER = GeneralGaussian(0.8, 380, 784), Truncated(NOISE, 0.9)


def stored_second(column: str, lower: float) -> tuple[GeneralGaussian | Truncated, float]:
    """The second law of a column, and the step of the grid of radii that it was searched on."""
    if column == "sigma0.8":
        return NARROW, 0.05
    if column == "th0.9":
        return INNER, 0.05
    return Truncated(NOISE, 0.08 * (-math.log(1 - lower) - 5) + 0.6), 0.01


@pytest.mark.parametrize("column", ["sigma0.8", "th0.9", "thx"])
def test_stored_radii(shared_data, column):
    """Their search ends at a multiple of its step: every radius here is within that step above."""
    with (shared_data / STORED).open() as file:
        rows = [row for row in csv.DictReader(file) if float(row["p_low"]) > 0.5][::150]
    for row in rows:
        lower, other = float(row["p_low"]), float(row[f"q_{column}_low"])
        second, step = stored_second(column, lower)
        found = doubled_radius(NOISE, second, lower, other)
        assert -1e-9 < found - float(row[f"dsrs_radius_{column}"]) < step
        assert found >= float(NOISE.radius(lower))


def least_by_program(second, shift: float, lower: float, other: float) -> float:
    """Smallest P(A - d) of events made of cells (length, angle), with P(A) and Q(A) as given.

    Any such event is one that the certificate must survive, so a certified shift leaves >= 1/2.
    """
    size, k, s = NOISE.size, NOISE.k, NOISE.scale
    m = size - 2 * k
    t = np.linspace(0.3, 8.5, 110)[:, None]  # length / s
    angle = np.linspace(-4.5, 4.5, 110)[None] / math.sqrt(size)  # cosine with d
    first = t ** (m - 1) * np.exp(-t * t / 2) * (1 - angle**2) ** ((size - 3) / 2)
    first /= first.sum()
    d = shift / s
    behind = t * t - 2 * t * d * angle + d * d
    moved = first * (behind / t**2) ** -k * np.exp(-(behind - t * t) / 2)
    if isinstance(second, Truncated):
        also = first * (t * s <= second.limit)
    else:
        ratio = second.sigma / NOISE.sigma
        log = -m * math.log(ratio) - t * t / 2 * (ratio**-2 - 1)
        also = first * np.exp(log)
    also /= also.sum()
    program = linprog(
        moved.ravel() / moved.sum(),
        A_ub=-np.stack([first.ravel(), also.ravel()]),
        b_ub=[-lower, -other],
        bounds=(0, 1),
        method="highs",
    )
    assert program.status == 0
    return float(program.fun)


@pytest.mark.parametrize(
    ("second", "lower", "other"), [(NARROW, 0.9884, 0.998), (INNER, 0.97, 0.983)], ids=repr
)
def test_the_radius_is_the_exact_optimum(second, lower, other):
    radius = doubled_radius(NOISE, second, lower, other)
    assert radius > 1.02 * float(NOISE.radius(lower))
    assert least_by_program(second, 0.99 * radius, lower, other) > 0.5
    assert least_by_program(second, 1.02 * radius, lower, other) < 0.5


@pytest.mark.parametrize("second", [NARROW, INNER], ids=repr)
def test_the_ratio_of_the_densities_is_the_one_that_the_laws_have(second):
    """Means under Q are means under P times the ratio."""
    relation = second.relative_to(NOISE)
    t, weight = NOISE.law.lengths(256, [math.sqrt(w) for w in relation.cuts()])
    ratio = weight * np.exp(relation.log_ratio(t * t))
    other, share = relation.lengths(NOISE.law, 256)
    assert ratio.sum() == pytest.approx(1.0, rel=1e-10)
    for power in (1, 2, 5):
        assert ratio @ t**power == pytest.approx(share @ other**power, rel=1e-10)


def test_a_second_law_that_adds_nothing():
    alone = float(NOISE.radius(0.95))
    assert doubled_radius(NOISE, NARROW, 0.95, 0.5) == alone
    assert doubled_radius(NOISE, INNER, 0.95, 0.0) == alone
    assert doubled_radius(NOISE, NARROW, 0.45, 0.99) == 0.0
    assert doubled_radius(NOISE, NARROW, 1.0, 0.99) == math.inf


def test_it_grows_with_what_the_second_law_says():
    found = [doubled_radius(NOISE, NARROW, 0.95, q) for q in (0.955, 0.98, 0.99, 0.999)]
    assert (np.diff(found) > 0).all()
    found = [doubled_radius(NOISE, INNER, 0.95, q) for q in (0.96, 0.97, 0.9999)]
    assert (np.diff(found) > 0).all()


@pytest.mark.parametrize("size", [16, 3072])
def test_other_sizes(size):
    first, second = (
        GeneralGaussian(0.5, size // 2 - 4, size),
        GeneralGaussian(0.3, size // 2 - 4, size),
    )
    assert doubled_radius(first, second, 0.9, 0.99) > float(first.radius(0.9)) * 1.01


def test_half_spaces_of_gaussian_noise():
    """k = 0: the worst event for P is a half-space, under which Q = N(0, sigma_q) is known."""
    first, second = GeneralGaussian(1.0, 0, 12), GeneralGaussian(0.8, 0, 12)
    lower = 0.9
    half_space = 0.5 * (1 + math.erf(float(Gaussian(1.0).radius(lower)) / 0.8 / math.sqrt(2)))
    alone = float(first.radius(lower))
    assert doubled_radius(first, second, lower, half_space - 1e-3) == alone
    assert doubled_radius(first, second, lower, half_space + 1e-2) > alone * 1.002


def test_where_the_second_law_alone_decides():
    """Q(A) >= 0.99 for N(0, 0.8): the worst event for Q alone is likelier under P than is asked."""
    found = doubled_radius(NOISE, NARROW, 0.8, 0.99)
    assert found == pytest.approx(doubled_radius(NOISE, NARROW, 0.75, 0.99), rel=1e-9)
    assert found > 1.5 * float(NOISE.radius(0.8))
    assert least_by_program(NARROW, 0.99 * found, 0.8, 0.99) > 0.5
    assert least_by_program(NARROW, 1.02 * found, 0.8, 0.99) < 0.5


@pytest.mark.parametrize(
    "second",
    [
        GeneralGaussian(1.0, 380, 784),
        GeneralGaussian(0.8, 379, 784),
        GeneralGaussian(0.8, 380, 785),
        Truncated(GeneralGaussian(0.9, 380, 784), 0.5),
    ],
    ids=repr,
)
def test_laws_that_do_not_belong_together(second):
    with pytest.raises(ArgumentError, match="second noise"):
        doubled_radius(NOISE, second, 0.9, 0.9)


@pytest.mark.parametrize(("lower", "other"), [(1.1, 0.9), (0.9, -0.1), (0.9, float("nan"))])
def test_bad_probabilities(lower, other):
    with pytest.raises(ArgumentError, match="probability"):
        doubled_radius(NOISE, NARROW, lower, other)
