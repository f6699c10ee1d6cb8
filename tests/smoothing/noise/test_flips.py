"""Discrete flips: published thresholds, enumeration of all outcomes, ties, and the law of the draws."""

import csv
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from tests.smoothing.lookup import Table, changes, keeps

from certus.core import ArgumentError
from certus.core.random import generator
from certus.smoothing.noise import Flips, SparseFlips
from certus.smoothing.noise.flips import _regions, _steps
from certus.smoothing.noise.whole import fill_whole


def test_thresholds_are_the_published_ones(shared_data):
    path = shared_data / "reference_tables" / "l0_rho_thresholds_lee2019.csv"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert len(rows) == 178
    for row in rows:
        noise = Flips(float(row["alpha"]), int(row["d"]), int(row["K"]))
        found, err = noise.limit(int(row["r"])), row["err"]
        assert abs(found - Fraction(row["threshold"])) <= Fraction("1e-20" if err == "NA" else err)


def outcomes(keep, levels, x):
    """Every outcome of x (positions on the grid) with its exact probability."""
    other = (1 - keep) / levels
    for z in product(range(levels + 1), repeat=len(x)):
        chance = Fraction(1)
        for a, b in zip(x, z, strict=True):
            chance *= keep if a == b else other
        yield z, chance


def largest(here, there, probability):
    """The largest mass of `there` on outcomes of this much `here`, outcome by outcome."""
    total, left = Fraction(0), probability
    for p, q in sorted(zip(here, there, strict=True), key=lambda pq: pq[0] / pq[1]):
        take = min(p, left)
        total, left = total + q * take / p, left - take
    return total


@pytest.mark.parametrize(("levels", "size"), [(1, 4), (2, 3), (4, 2)])
def test_regions_are_those_of_all_outcomes(levels, size):
    """Features in which x and x' agree do not matter, as the enumeration over all of them shows."""
    keep, x = Fraction(3, 5), (0,) * size
    stay, move = Flips(0.6, size, levels)._weights
    assert Fraction(stay, stay + levels * move) == keep
    here = [p for _, p in outcomes(keep, levels, x)]
    for r in range(size + 1):
        other = (1,) * r + x[r:]
        there = [p for _, p in outcomes(keep, levels, other)]
        regions = _regions(stay, move, levels, r)
        assert sum(regions.clean) == sum(regions.changed) == regions.total
        for part in range(21):
            probability = Fraction(part, 20)
            wanted = largest(here, there, probability)
            assert regions.most(probability) == wanted
            assert regions.least(1 - probability) == 1 - wanted
        assert regions.least(regions.limit) == Fraction(1, 2)


@pytest.mark.parametrize(("levels", "size", "keep"), [(1, 3, 0.9), (2, 2, 0.8), (3, 2, 0.9)])
def test_no_adversary_refutes_a_certificate(levels, size, keep):
    noise = Flips(keep, size, levels)
    points = np.array(list(product(range(levels + 1), repeat=size)))
    exact = [[p for _, p in outcomes(Fraction(str(keep)), levels, tuple(x))] for x in points]
    law, apart, certified = np.array(exact, dtype=float), changes(points), 0
    for seed in range(100):
        favour = 0.7 + 0.3 * (seed % 4) / 4
        votes = np.array(Table(seed, favour=favour)(torch.from_numpy(points)))
        largest, second, holds = keeps(law @ (votes[:, None] == np.arange(3)))
        radius = noise.radius(largest, second)
        assert holds[(apart <= radius[:, None]) & (radius[:, None] > 0)].all()
        certified += (radius > 0).sum()
    assert certified > 20


def test_a_tie_is_not_certified():
    noise = Flips(0.8, 784)
    assert noise.limit(0) == Fraction(1, 2) and noise.limit(1) == Fraction(7, 8)
    assert noise.radius(0.875) == 0 and noise.radius(np.nextafter(0.875, 1.0)) == 1
    assert noise.threshold(1) == np.nextafter(0.875, 1.0)
    assert noise.radius(0.5, 0.5) == 0


def test_the_runner_up_enlarges_the_radius_and_never_harms():
    noise = Flips(0.8, 784)
    p = np.array([0.4, 0.5, 0.6, 0.9, 0.99, 0.999])
    one, two = noise.radius(p), noise.radius(p, (1 - p) / 10)
    assert one.tolist() == [0, 0, 0, 1, 2, 5] and (two >= one).all() and (two > one).any()
    assert noise.radius(0.7, 0.01) > noise.radius(0.7)
    grid = np.linspace(0.5, 1.0, 200)
    assert (np.diff(noise.radius(grid)) >= 0).all()
    assert (np.diff(noise.radius(0.9, np.linspace(0, 0.1, 50))) <= 0).all()


def test_certainty_covers_every_change():
    assert Flips(0.8, 784).radius(1.0) == 784
    assert Flips(0.2, 150_528, 255).radius([1.0, 0.9999999]).tolist() == [150_528, 17]
    assert Flips(0.8, 3).radius(1 - 1e-9) == 3  # no more than there are


@pytest.mark.parametrize(("keep", "levels"), [(0.8, 1), (0.4, 3), (0.35, 7), (0.1, 255)])
def test_every_draw_is_known(keep, levels):
    """All whole numbers that a draw may be: keep of them stay, each other value gets as many."""
    stay, move = Flips(keep, 4, levels)._weights
    draws = torch.arange(stay + levels * move, dtype=torch.float32)
    counts = torch.bincount(_steps(draws, stay, move).long()).tolist()
    assert counts == [stay] + [move] * levels
    assert Fraction(stay, sum(counts)) == Fraction(str(keep))
    steps = torch.arange(levels + 1, dtype=torch.float32)[:, None]
    for position in {0, 1, levels}:
        x = torch.tensor([position / levels])
        rows = Flips(keep, 1, levels).apply(x, steps, torch.empty(levels + 1, 1))
        assert rows[0] == x
        assert sorted((rows.flatten() * levels).round().tolist()) == list(range(levels + 1))
        assert torch.equal(rows, (rows * levels).round() / levels)


def test_draws_have_the_law():
    noise = Flips(0.7, 6, 3)
    draws = noise.sample((5000, 6), generator(3))
    share = torch.bincount(draws.flatten().long()).double() / draws.numel()
    assert torch.allclose(share, torch.tensor([0.7, 0.1, 0.1, 0.1]).double(), atol=0.01)
    together = float((draws[:, 0] == 0).double() @ (draws[:, 1] == 0).double()) / 5000
    assert together == pytest.approx(0.49, abs=0.03)


def test_inputs_off_the_grid_are_refused():
    noise = Flips(0.5, 4, 255)
    levels = torch.arange(256, dtype=torch.float32)
    for x in (levels / 255, levels * torch.tensor(1 / 255), (levels.double() / 255).half().float()):
        near = bool(((x * 255 - levels).abs() < 1e-3).all())
        if near:
            noise.check(x.view(64, 4))
        else:
            with pytest.raises(ArgumentError, match="k/255"):
                noise.check(x.view(64, 4))
    for bad in (0.5, -1 / 255, 256 / 255):
        with pytest.raises(ArgumentError, match="k/255"):
            noise.check(torch.full((1, 4), bad))
    with pytest.raises(ArgumentError, match="0 or 1"):
        Flips(0.8, 4).check(torch.full((1, 4), 0.5))
    with pytest.raises(ArgumentError, match="4 values"):
        noise.check(torch.zeros(2, 5))


@pytest.mark.parametrize(
    "arguments",
    [
        (0.0, 4),
        (1.0, 4),
        (1.2, 4),
        (float("nan"), 4),
        (0.8, 0),
        (0.8, 4.0),
        (0.8, 4, 0),
        (0.5, 4, 1),
        (0.25, 4, 3),
        (1 / 3, 4),
        (0.1234567, 4, 255),
    ],
)
def test_bad_settings(arguments):
    with pytest.raises(ArgumentError):
        Flips(*arguments)


@pytest.mark.parametrize("number", [1, 5, 1275, 2**24 - 1])
def test_whole_numbers_lie_below_their_number(number):
    draws = torch.empty(100_000)
    fill_whole(draws, number, generator(1))
    assert bool(((draws >= 0) & (draws < number) & (draws == draws.floor())).all())
    assert number > 2000 or len(draws.unique()) == number


def test_long_decimals_are_drawn_as_they_are_written():
    """32 random bits divided by 10 million make the smaller numbers likelier, by 6e-4 together."""
    draws = torch.empty(20_000_000)
    Flips(0.5032704, 1).fill(draws, generator(0))
    assert binomtest(int((draws == 0).sum()), len(draws), 0.5032704).pvalue > 1e-3
    noise = SparseFlips(0.4967296, 0.1, 1)
    noise.fill(draws, generator(0))
    ones = noise.apply(torch.zeros(1), draws, draws)
    assert binomtest(int(ones.sum()), len(draws), 0.4967296).pvalue > 1e-3
