"""Structured ablation: counts of copies against every place of a patch, ties, wrap-around, worst cases."""

from itertools import product

import numpy as np
import pytest
import torch
from tests.smoothing.lookup import Table

from certus.core import ArgumentError
from certus.smoothing.derandomized import Blocks, Columns, Rows

KINDS = [Columns, Rows, Blocks]
H, W = 4, 5


def patches(size, height=H, width=W):
    """Masks of all squares of this size."""
    for top, left in product(range(height - size + 1), range(width - size + 1)):
        mask = torch.zeros(height, width, dtype=torch.bool)
        mask[top : top + size, left : left + size] = True
        yield mask


def every(noise, x):
    """All copies of an input."""
    return noise.rows(x, 0, noise.copies(tuple(x.shape)))


@pytest.mark.parametrize("null", [None, 0.5])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("kind", KINDS)
def test_the_copies_that_a_patch_changes_are_counted(kind, size, null):
    noise, x = kind(size, null), 0.4 * torch.rand(2, H, W)
    clean = every(noise, x)
    for patch in range(1, H + 1):
        changed = [
            int((every(noise, torch.where(m, x + 0.6, x)) != clean).flatten(1).any(1).sum())
            for m in patches(patch)
        ]
        assert max(changed) == noise.met(patch, H, W)
        assert min(changed) == max(changed)  # around the edges, so every place is alike


def test_counts_of_the_paper():
    assert Columns(4).met(5, 32, 32) == Rows(4).met(5, 32, 32) == 8
    assert Blocks(12).met(5, 32, 32) == 256
    assert Columns(4).met(30, 32, 32) == 32 and Blocks(20).met(20, 32, 32) == 1024
    assert [k(4).copies((3, 32, 40)) for k in KINDS] == [40, 32, 1280]


@pytest.mark.parametrize("kind", KINDS)
def test_copies_show_windows_around_the_edges(kind):
    noise, x = kind(2, -1.0), torch.rand(1, H, W)
    rows = every(noise, x)[:, 0]
    shown = {
        Columns: [(range(H), (j, j + 1)) for j in range(W)],
        Rows: [((i, i + 1), range(W)) for i in range(H)],
        Blocks: [((i, i + 1), (j, j + 1)) for i in range(H) for j in range(W)],
    }[kind]
    assert len(rows) == len(shown)
    for row, (high, wide) in zip(rows, shown, strict=True):
        expected = torch.full((H, W), -1.0)
        for i, j in product(high, wide):
            expected[i % H, j % W] = x[0, i % H, j % W]
        assert torch.equal(row, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_slices_are_parts_of_the_whole(kind):
    noise, x = kind(2), torch.rand(3, H, W, dtype=torch.float64)
    rows = every(noise, x)
    assert rows.dtype == x.dtype and rows.shape[1:] == noise.rows_shape((3, H, W)) == (6, H, W)
    pieces = [noise.rows(x, i, min(i + 3, len(rows))) for i in range(0, len(rows), 3)]
    assert torch.equal(torch.cat(pieces), rows)
    shown = rows.sum(1, keepdim=True) != 0
    assert torch.equal(rows[:, :3], torch.where(shown, x, 0.0))
    assert torch.equal(rows[:, 3:], torch.where(shown, 1 - x, 0.0))


@pytest.mark.parametrize(("kind", "size"), [(Columns, 1), (Columns, 2), (Rows, 1), (Blocks, 1)])
def test_no_adversary_refutes_a_certificate(kind, size):
    """Every place of every patch, for the classifier that gives all it reaches to a rival."""
    noise, x, seen = kind(size), torch.rand(1, 6, 7), {}
    copies = every(noise, x)
    for seed in range(16):
        table = Table(seed, favour=0.6 + 0.4 * (seed % 5) / 4)
        table.favoured = seed % 3
        counts = np.bincount(table(copies), minlength=3)
        radius, winner = int(noise.proven(counts[None], (1, 6, 7))[0]), int(counts.argmax())
        table.certain = True
        fooled = set()
        for patch, table.favoured in product(range(1, 6), {0, 1, 2} - {winner}):
            for mask in patches(patch, 6, 7):
                moved = every(noise, torch.where(mask, torch.rand(1, 6, 7), x))
                if int(np.bincount(table(moved), minlength=3).argmax()) != winner:
                    fooled.add(patch)
        assert not fooled or min(fooled) > radius
        seen.setdefault(radius, set()).update(fooled)
    assert len(seen) > 1 and any(min(f, default=9) == r + 1 for r, f in seen.items())


def test_equality_is_enough_for_the_smaller_index_only():
    """Columns of width 2, m = 1: D = 2, so a lead of 4 is needed, and 5 where a tie is lost."""
    noise, shape = Columns(2), (1, 9, 10)
    counts = np.array([[7, 3], [3, 7], [6, 3], [2, 7], [8, 2], [2, 8], [5, 5], [10, 0]])
    assert noise.proven(counts, shape).tolist() == [1, 0, 0, 1, 2, 1, 0, 4]
    assert Columns(2).proven(np.array([[7, 0, 3], [3, 7, 0]]), shape).tolist() == [1, 0]
    assert Blocks(1).proven(np.array([[90, 0]]), shape).tolist() == [6]  # 36 <= 45 < 49
    assert Columns(20).proven(np.array([[1, 0]]), shape).tolist() == [0]  # it hides nothing


@pytest.mark.parametrize(
    "make",
    [
        lambda: Columns(0),
        lambda: Blocks(1.5),
        lambda: Rows(2, float("nan")),
        lambda: Rows(2).met(0, 4, 4),
        lambda: Rows(2).check(torch.rand(2, 4, 4)),
        lambda: Columns(2).copies((4, 4)),
    ],
)
def test_what_is_refused(make):
    with pytest.raises(ArgumentError):
        make()
