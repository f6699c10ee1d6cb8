"""Random ablation: exact counts, all ablations against all adversaries, ties, and the law of the draws."""

from fractions import Fraction
from itertools import combinations, product
from math import comb

import numpy as np
import pytest
import torch
from tests.smoothing.lookup import Table, changes, keeps

from certus.core import ArgumentError
from certus.core.random import generator
from certus.smoothing.noise import Ablation, PixelAblation


def masks(size, keep):
    """Every choice of `keep` features, [n, size]."""
    return torch.stack(
        [
            torch.tensor([float(i in c) for i in range(size)])
            for c in combinations(range(size), keep)
        ]
    )


@pytest.mark.parametrize("size", [1, 4, 7])
def test_the_chance_to_be_seen_is_that_of_all_choices(size):
    for keep in range(1, size + 1):
        every = masks(size, keep).bool()
        for r in range(size + 1):
            seen = int(every[:, :r].any(1).sum())
            assert Ablation(keep, size).seen(r) == Fraction(seen, len(every))


def test_the_formula_of_the_paper_at_its_size():
    for r in (1, 8, 60):
        assert Ablation(45, 784).seen(r) == 1 - Fraction(comb(784 - r, 45), comb(784, 45))
    assert Ablation(45, 784).radius([0.95, 0.5]).tolist() == [10, 0]  # 0.95 - D(10) > 1/2
    big = Ablation(2000, 150_528)
    least = float(big.seen(20)) + 0.5
    assert big.radius([least - 1e-9, least + 1e-9]).tolist() == [19, 20]


def test_a_tie_is_not_certified():
    """D(1) = 1 - C(7, 2) / C(8, 2) = 1/4: pA = 3/4 leaves a tie, anything above does not."""
    noise = Ablation(2, 8)
    assert noise.seen(1) == Fraction(1, 4)
    assert noise.radius(0.75) == 0 and noise.radius(np.nextafter(0.75, 1.0)) == 1
    assert noise.radius(0.625, 0.125) == 0
    assert noise.radius(np.nextafter(0.625, 1.0), 0.125) == 1
    assert noise.radius(0.625, np.nextafter(0.125, 0.0)) == 1
    assert noise.radius(0.5, 0.5) == 0 and noise.radius(0.2, 0.1) == 0
    assert float(noise.radius(noise.threshold(1))) == 1


@pytest.mark.parametrize("null", [None, 0.5])
@pytest.mark.parametrize(("size", "keep"), [(4, 1), (5, 1), (6, 2)])
def test_no_adversary_refutes_a_certificate(size, keep, null):
    """Tables of all copies, and all changes of an input: its copies vote as they like, others against."""
    noise, every = Ablation(keep, size, null), masks(size, keep)
    certified = refuted = 0
    levels = [0.0, 0.5, 1.0] if size < 6 else [0.0, 1.0]
    points = torch.tensor(list(product(levels, repeat=size)))
    out = torch.empty(len(points), len(every), *noise.rows_shape((size,)))
    for x, copies in zip(points, out, strict=True):
        noise.apply(x, every, copies)
    apart = changes(points.numpy())
    for seed in range(30):
        table, centre = Table(seed, favour=0.9), seed % len(points)
        table(out[centre])
        table.favoured = 1  # whatever sees a change goes to the rival
        votes = np.array(table(out.flatten(0, 1))).reshape(len(points), -1)
        largest, second, holds = keeps((votes[:, :, None] == np.arange(3)).mean(1))
        radius = noise.radius(largest[centre], second[centre])
        near = apart[centre] <= radius
        assert radius == 0 or holds[centre, near].all()
        certified, refuted = certified + (radius > 0), refuted + (~holds[centre, ~near]).sum()
    assert certified and refuted


def test_the_certificate_is_tight():
    """Just below the bound there is a classifier that the adversary fools: it looks at the change."""
    noise, every = Ablation(1, 4), masks(4, 1)
    saw = every[:, 0].bool()  # the first feature is shown: 1/4 of all ablations
    before = torch.where(saw, 0, torch.tensor([0, 0, 0, 1]))  # class 0: 3/4, class 1: 1/4
    after = torch.where(saw, 1, before)
    assert (before == 0).sum() == 3 and (after == 0).sum() == (after == 1).sum() == 2  # a tie
    assert noise.radius(0.75, 0.25) == 0 and noise.radius(0.76, 0.24) == 1


def test_draws_are_all_choices_equally_often():
    noise, n = Ablation(2, 5), 20_000
    draws = noise.sample((n, 5), generator(0, 1), torch.float64)
    assert draws.dtype == torch.float64 and bool((draws.sum(1) == 2).all())
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    code = (draws * 2.0 ** torch.arange(5)).sum(1).long()
    counts = torch.bincount(code)
    counts = counts[counts > 0].double()
    assert len(counts) == 10
    assert float(((counts - n / 10) ** 2 / (n / 10)).sum()) < 30  # chi-squared, 9 degrees: p > 4e-4


def test_hidden_features_carry_nothing():
    x = torch.tensor([[0.0, 1.0], [0.25, 0.5]])
    kept = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    double = Ablation(2, 4).apply(x, kept, torch.empty(1, 4, 2))
    assert double.tolist() == [[[0.0, 0.0], [0.0, 0.5], [1.0, 0.0], [0.0, 0.5]]]
    grey = Ablation(2, 4, 0.5).apply(x, kept, torch.empty(1, 2, 2))
    assert grey.tolist() == [[[0.0, 0.5], [0.5, 0.5]]]
    other = torch.where(kept[0] == 1, x, 0.77)
    for null in (None, 0.3):
        noise = Ablation(2, 4, null)
        shape = (1, *noise.rows_shape((2, 2)))
        both = [noise.apply(v, kept, torch.empty(shape)) for v in (x, other)]
        assert torch.equal(*both)


def test_pixels_are_shown_in_all_channels():
    noise, x = PixelAblation(2, 6, 0.5), torch.rand(3, 2, 3) / 4
    assert noise.norm == "l0-pixels" and noise.draw_shape((3, 2, 3)) == (1, 2, 3)
    draws = noise.sample((50, 3, 2, 3), generator(1))
    rows = noise.apply(x, draws, torch.empty(50, 3, 2, 3))
    hidden = rows == 0.5
    assert bool((hidden == hidden[:, :1]).all()) and bool(
        (hidden[:, 0].flatten(1).sum(1) == 4).all()
    )
    assert torch.equal(rows[~hidden], x.expand(50, 3, 2, 3)[~hidden])
    noise.check(torch.rand(2, 3, 2, 3))
    assert PixelAblation(2, 6).radius(0.9) == Ablation(2, 6).radius(0.9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Ablation(0, 4),
        lambda: Ablation(5, 4),
        lambda: Ablation(1.0, 4),
        lambda: Ablation(1, 0),
        lambda: Ablation(1, 4, float("nan")),
        lambda: Ablation(1, 4, float("inf")),
        lambda: Ablation(1, 4, "zero"),
        lambda: Ablation(1, 4).check(torch.rand(2, 5)),
        lambda: Ablation(1, 4).seen(5),
        lambda: Ablation(1, 4).seen(-1),
        lambda: PixelAblation(1, 4).check(torch.rand(2, 4)),
        lambda: PixelAblation(1, 4).check(torch.rand(2, 4, 2)),
    ],
)
def test_what_is_refused(make):
    with pytest.raises(ArgumentError):
        make()
