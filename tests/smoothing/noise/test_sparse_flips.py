"""Sparse flips: enumeration of all outcomes, agreement with plain flips, zero chances, the draws."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from tests.smoothing.lookup import Table, changes, keeps
from tests.smoothing.noise.test_flips import largest

from certus.core import ArgumentError
from certus.core.random import generator
from certus.smoothing.noise import Flips, SparseFlips
from certus.smoothing.noise.flips import _regions as plain_regions


def chances(noise, x):
    """Exact probability of every outcome of the binary x."""
    add, remove = Fraction(str(noise.p_add)), Fraction(str(noise.p_remove))
    found = []
    for z in product((0, 1), repeat=len(x)):
        chance = Fraction(1)
        for a, b in zip(x, z, strict=True):
            flip = remove if a else add
            chance *= flip if a != b else 1 - flip
        found.append(chance)
    return found


CHANCES = [(0.1, 0.3), (0.01, 0.6), (0.3, 0.3), (0.0, 0.4), (0.2, 0.0)]


@pytest.mark.parametrize(("p_add", "p_remove"), CHANCES)
def test_regions_are_those_of_all_outcomes(p_add, p_remove):
    noise = SparseFlips(p_add, p_remove, 4)
    for added, removed in product(range(3), range(3)):
        x = (0,) * added + (1,) * removed + (0,) * (4 - added - removed)
        other = (1,) * added + (0,) * removed + x[added + removed :]
        here, there = chances(noise, x), chances(noise, other)
        free = sum(q for p, q in zip(here, there, strict=True) if p == 0)
        both = [(p, q) for p, q in zip(here, there, strict=True) if p and q]
        regions = noise._regions(added, removed)
        for part in range(21):
            probability = Fraction(part, 20)
            cheap = sum(p for p, q in zip(here, there, strict=True) if q == 0)
            spent = max(Fraction(0), min(probability, 1 - cheap))
            wanted = free + (largest(*zip(*both, strict=True), spent) if both else 0)
            assert regions.most(probability) == wanted


@pytest.mark.parametrize("keep", [0.7, 0.8, 0.95])
def test_equal_chances_are_plain_flips(keep):
    plain = Flips(keep, 20)
    flip = float(1 - Fraction(str(keep)))
    noise = SparseFlips(round(flip, 10), round(flip, 10), 20)
    for r in range(6):
        other = plain_regions(*plain._weights, 1, r)
        for added in range(r + 1):
            mine = noise._regions(added, r - added)
            for part in range(11):
                assert mine.most(Fraction(part, 10)) == other.most(Fraction(part, 10))
    p = np.linspace(0.4, 0.9999, 40)
    assert noise.radius(p, (1 - p) / 2).tolist() == plain.radius(p, (1 - p) / 2).tolist()


@pytest.mark.parametrize(("p_add", "p_remove"), [(0.1, 0.1), (0.05, 0.3), (0.0, 0.3), (0.3, 0.0)])
def test_no_adversary_refutes_a_certificate(p_add, p_remove):
    noise, certified = SparseFlips(p_add, p_remove, 3), set()
    points = np.array(list(product((0, 1), repeat=3)))
    law = np.array([chances(noise, tuple(x)) for x in points], dtype=float)
    apart = changes(points)
    added = (points[:, None] < points[None]).sum(2)
    for seed in range(60):
        votes = np.array(Table(seed, favour=0.7 + 0.3 * (seed % 4) / 4)(torch.from_numpy(points)))
        largest, second, holds = keeps(law @ (votes[:, None] == np.arange(3)))
        radius = noise.radius(largest, second)
        assert holds[(apart <= radius[:, None]) & (radius[:, None] > 0)].all()
        for a, r in {(0, 1), (1, 0), (1, 1), (0, 2), (2, 0)}:
            pair = (added == a) & (apart - added == r)
            for x, (p, q) in enumerate(zip(largest, second, strict=True)):
                if noise.survives(p, q, a, r):
                    certified.add((a, r))
                    assert holds[x][pair[x]].all()
    # where zeros never become ones, an added one betrays itself; likewise for ones
    assert certified >= {pair for pair, chance in (((0, 1), p_remove), ((1, 0), p_add)) if chance}


def test_fewer_changes_are_covered_too():
    noise = SparseFlips(0.01, 0.6, 100)
    pairs = {(a, r) for a, r in product(range(5), range(14)) if noise.survives(0.95, 0.05, a, r)}
    assert (1, 1) in pairs and (0, 3) in pairs and (3, 3) not in pairs
    assert all((max(0, a - 1), r) in pairs and (a, max(0, r - 1)) in pairs for a, r in pairs)
    radius = int(noise.radius(0.95, 0.05))
    assert all((a, radius - a) in pairs for a in range(radius + 1))
    assert not all((a, radius + 1 - a) in pairs for a in range(radius + 2))
    assert noise.radius(1.0) == 100 and noise.survives(1.0, 0.0, 50, 50)
    assert SparseFlips(0.0, 0.6, 100).radius(1.0) < 100  # what is added may show that it was


def test_every_draw_is_known():
    noise, parts = SparseFlips(0.05, 0.6, 2), 20
    draws = torch.arange(parts, dtype=torch.float32)[:, None].expand(parts, 2).contiguous()
    rows = noise.apply(torch.tensor([0.0, 1.0]), draws, torch.empty(parts, 2))
    assert rows.sum(0).tolist() == [1, 8] and set(rows.unique().tolist()) == {0, 1}
    drawn = noise.sample((4000, 2), generator(1))
    assert float(drawn.max()) == parts - 1 and float(drawn.min()) == 0
    assert float(drawn.mean()) == pytest.approx((parts - 1) / 2, abs=0.3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SparseFlips(-0.1, 0.5, 4),
        lambda: SparseFlips(0.1, 1.0, 4),
        lambda: SparseFlips(0.0, 0.0, 4),
        lambda: SparseFlips(0.5, 0.5, 4),
        lambda: SparseFlips(float("nan"), 0.5, 4),
        lambda: SparseFlips(1 / 3, 0.5, 4),
        lambda: SparseFlips(0.1, 0.5, 0),
        lambda: SparseFlips(0.1, 0.5, 4).check(torch.zeros(2, 5)),
        lambda: SparseFlips(0.1, 0.5, 4).check(torch.full((2, 4), 0.5)),
        lambda: SparseFlips(0.1, 0.5, 4).survives(1.1, 0.0, 0, 0),
        lambda: SparseFlips(0.1, 0.5, 4).survives(0.9, float("nan"), 0, 0),
        lambda: SparseFlips(0.1, 0.5, 4).survives(0.9, 0.1, -1, 0),
    ],
)
def test_what_is_refused(make):
    with pytest.raises(ArgumentError):
        make()
