"""Order statistics: planes against samples, exact where the order is known; errors that they pass on."""

import torch
from tests.laws.networks import Function

from certus.bounding.rounding import passed
from certus.graph import trace
from certus.graph.extremum import Sorted
from certus.lipschitz.constant import lipschitz
from certus.relax import intervals, relaxations


def boxes(width):
    """[60, 3, 5] ends: some overlap, some do not, some have no width and are equal."""
    g = torch.Generator().manual_seed(7)
    centre = torch.randn(60, 3, 5, generator=g).double()
    half = width * torch.rand(60, 3, 5, generator=g).double()
    half[::4] = 0
    centre[::3, :, 1] = centre[::3, :, 2]
    return centre - half, centre + half


def test_planes_hold_for_samples_and_any_rows():
    g = torch.Generator().manual_seed(1)
    for dim in (1, 2):
        for width in (0.01, 0.3, 2.0):
            op, (low, high) = Sorted(dim), boxes(width)
            rows = torch.randn(4, 60, 3, 5, generator=g).double()
            for given in (rows, rows[:, :1]):
                (pulled,), offset = relaxations[Sorted](op, (low, high)).pull(given)
                for share in (
                    0.0,
                    0.5,
                    1.0,
                    *(torch.rand(60, 3, 5, generator=g) for _ in range(60)),
                ):
                    x = low + share * (high - low)
                    value = (given * op.forward(x)).flatten(2).sum(2)
                    line = (pulled * x).flatten(2).sum(2) + offset
                    assert bool((line <= value + 1e-9).all())


def test_the_relaxation_is_exact_where_the_order_is_known():
    low = torch.tensor([[3.0, -1.0, 1.0, 1.0]]).double()
    high = low + torch.tensor([[0.5, 1.0, 2.0, 0.0]]).double()
    found = relaxations[Sorted](Sorted(1), (low, high))
    assert found.known.tolist() == [[True, True, True, True]]
    assert found.source[0, 0] == 1 and found.source[0, 3] == 0
    wide = relaxations[Sorted](Sorted(1), (low, high + torch.tensor([0.0, 0.0, 0.1, 0.0])))
    assert wide.known.tolist() == [[True, True, False, False]]


def test_ends_that_are_not_known_give_no_planes():
    low, high = boxes(0.3)
    low[0, 0, 0] = float("nan")
    _, offset = relaxations[Sorted](Sorted(2), (low, high)).pull(torch.ones(1, 60, 3, 5).double())
    assert bool(offset[0, 0].isnan()) and not bool(offset[0, 1:].isnan().any())


def test_no_order_statistic_moves_by_more_than_an_input():
    g = torch.Generator().manual_seed(2)
    x = torch.randn(500, 3, 5, generator=g).double()
    errors = torch.rand(500, 3, 5, generator=g).double()
    moved = x + errors * (2 * torch.rand(500, 3, 5, generator=g).double() - 1)
    for dim in (1, 2):
        op = Sorted(dim)
        found = passed[Sorted](op, [errors], [(x, x)])
        gap = op.forward(moved) - op.forward(x)
        assert bool((gap.abs() <= found + 1e-12).all())
        assert bool(
            (gap.flatten(1).norm(dim=1) <= (moved - x).flatten(1).norm(dim=1) + 1e-12).all()
        )
        low, high = intervals[Sorted](op, (x - errors, x + errors))
        assert bool(((op.forward(moved) >= low) & (op.forward(moved) <= high)).all())
    graph = trace(Function(lambda m, x: 2 * x.sort(1).values).eval(), torch.rand(1, 4))
    assert 2 <= lipschitz(graph)[-1] < 2.001
