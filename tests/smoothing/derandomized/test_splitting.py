"""Deterministic splitting noise: every pair of grid inputs, worst tables, exact middles, ties."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from tests.smoothing.lookup import Table

from certus.core import ArgumentError
from certus.smoothing.derandomized import Splitting


def every(noise, x):
    """All copies of an input."""
    return noise.rows(x, 0, noise.copies(tuple(x.shape)))


def grid(levels, size):
    """All inputs of `size` values as positions [N, size]."""
    return torch.tensor(list(product(range(levels + 1), repeat=size)))


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 8, 20])
def test_a_value_is_told_apart_by_as_many_copies_as_levels(width):
    noise = Splitting(width, levels=6, seed=width)
    rows = [every(noise, torch.tensor([k / 6])) for k in range(7)]
    for k, other in product(range(7), range(7)):
        differ = int((rows[k] != rows[other]).sum())
        assert differ == min(abs(k - other), width)


@pytest.mark.parametrize("width", [3, 4, 7])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_change_reaches_more_copies_than_its_size(width, seed):
    noise, points = Splitting(width, levels=4, seed=seed), grid(4, 3)
    rows = torch.stack([every(noise, p / 4) for p in points])
    changed = (rows[:, None] != rows[None]).any(3).sum(2)
    size = (points[:, None] - points[None]).abs().sum(2)
    assert bool((changed <= size).all()) and bool((changed == size.clamp(max=width)).any())


def test_copies_are_the_middles_of_intervals():
    """In exact arithmetic, from the definition: cuts at offset + shift + 1/2 + n width."""
    for width, levels in ((3, 7), (4, 10), (17, 5)):
        noise = Splitting(width, levels=levels, seed=2)
        x = torch.arange(levels + 1, dtype=torch.float64) / levels
        rows = every(noise, x)
        for k in range(levels + 1):
            middles = set()
            for cut in range(width):
                below = max(
                    c for n in range(-40, 41) if (c := Fraction(2 * (cut + n * width) + 1, 2)) < k
                )
                low, high = max(below, Fraction(0)), min(below + width, Fraction(levels))
                middles.add(float((low + high) / 2 / levels))
            assert set(rows[:, k].tolist()) == middles
            assert bool(((rows[:, k] - x[k]).abs() <= width / levels / 2 + 1e-12).all())


def test_offsets_differ_between_values_and_seeds():
    x = torch.full((1, 5, 5), 0.4)
    rows = every(Splitting(20, seed=1), (x * 255).round() / 255)
    assert len(rows[0].unique()) > 5
    assert torch.equal(rows, every(Splitting(20, seed=1), (x * 255).round() / 255))
    assert not torch.equal(rows, every(Splitting(20, seed=2), (x * 255).round() / 255))
    pieces = [
        Splitting(20, seed=1).rows((x * 255).round() / 255, i, i + 5) for i in range(0, 20, 5)
    ]
    assert torch.equal(torch.cat(pieces), rows) and rows.dtype == x.dtype


def test_rounded_grid_values_give_the_same_copies():
    levels = torch.arange(256, dtype=torch.float32)
    noise = Splitting(30)
    one, other = levels / 255, levels * torch.tensor(1 / 255)
    assert not torch.equal(one, other) and torch.equal(every(noise, one), every(noise, other))


@pytest.mark.parametrize(("width", "levels", "size"), [(8, 4, 2), (9, 3, 3), (12, 8, 2)])
def test_no_adversary_refutes_a_certificate(width, levels, size):
    """All changes of an input, for the classifier that gives every new copy to a rival."""
    points, tight, certified = grid(levels, size), 0, set()
    for seed in range(24):
        noise = Splitting(width, levels=levels, seed=seed)
        table, centre = Table(seed, favour=0.6 + 0.4 * (seed % 3) / 2), seed * 7 % len(points)
        table.favoured = seed % 2
        counts = np.bincount(table(every(noise, points[centre] / levels)), minlength=3)
        radius = float(noise.proven(counts[None], (size,))[0])
        reach, winner = round(radius * levels), int(counts.argmax())
        assert radius == reach / levels
        table.favoured, table.certain = int(np.argsort(counts, kind="stable")[-2]), True
        for point in points:
            moved = int((point - points[centre]).abs().sum())
            votes = np.bincount(table(every(noise, point / levels)), minlength=3)
            if moved <= reach:
                assert int(votes.argmax()) == winner
            tight += moved == reach + 1 and int(votes.argmax()) != winner
        certified.add(reach)
    assert len(certified) > 1 and tight


def test_equality_is_enough_for_the_smaller_index_only():
    noise = Splitting(10, levels=255)
    counts = np.array([[7, 3], [3, 7], [8, 2], [2, 8], [10, 0], [0, 10], [5, 5], [6, 4]])
    found = noise.proven(counts, (3,)) * 255
    assert np.rint(found).tolist() == [2, 1, 3, 2, 5, 4, 0, 1]
    assert noise.proven(counts, (3,)).dtype == np.float64
    assert noise.proven(counts[:1], (3,))[0] == 2 / 255


@pytest.mark.parametrize(
    "make",
    [
        lambda: Splitting(0),
        lambda: Splitting(3.5),
        lambda: Splitting(3, levels=0),
        lambda: Splitting(3, seed=-1),
        lambda: Splitting(3, levels=4).check(torch.tensor([[0.3]])),
        lambda: Splitting(3, levels=4).check(torch.tensor([[1.25]])),
    ],
)
def test_what_is_refused(make):
    with pytest.raises(ArgumentError):
        make()
    Splitting(3, levels=4).check(torch.tensor([[0.25, 1.0]]))
