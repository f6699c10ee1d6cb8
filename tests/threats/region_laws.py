"""Laws that every region keeps, for regions that have test files of their own."""

import torch

from certus.core.random import per_input


def check(region, rounding=1e-9):
    """Samples, projections, ranges, corners, extent and selection of one region."""
    batch, shape = len(region), region.center.shape[1:]
    draws = [region.sample(per_input(k, range(batch))) for k in range(25)]
    far = [region.project(region.center + s * torch.randn_like(region.center)) for s in (0.1, 5)]
    rows = torch.randn(5, batch, *shape, dtype=region.center.dtype)
    ends = [
        region.project(region.center + 50 * region.steepest(s * r)) for r in rows for s in (1, -1)
    ]
    low, high = region.linear_range(rows)
    assert low.shape == high.shape == (5, batch) and bool((low <= high).all())
    extent = region.l2_extent(region.center)
    for points in (region.center, *draws, *far, *ends):
        assert bool(region.contains(points).all())
        value = torch.einsum("rbn,bn->rb", rows.flatten(2), points.flatten(1))
        assert bool(((value >= low - rounding) & (value <= high + rounding)).all())
        assert bool(((points >= region.lower) & (points <= region.upper)).all())
        gap = (points - region.center).flatten(1).norm(dim=1)
        assert bool((gap <= extent + rounding).all())
    assert torch.equal(draws[3], region.sample(per_input(3, range(batch))))
    assert bool((torch.stack(draws).std(0) > 0).any())
    assert not bool(region.contains(region.center * float("nan")).any())
    assert not bool(region.contains(region.upper + 1.0).any())
    shared = region.linear_range(rows[:, :1])
    repeated = region.linear_range(rows[:, :1].expand_as(rows))
    two = torch.tensor([batch - 1, 0])
    part = region.select(two)
    for a, b, c in zip(shared, repeated, part.linear_range(rows[:, two]), strict=True):
        torch.testing.assert_close(a, b)
        assert a.shape == (5, batch) and c.shape == (5, 2)
    torch.testing.assert_close(part.linear_range(rows[:, two])[0], low[:, two])
    torch.testing.assert_close(part.sample(per_input(3, two.tolist())), draws[3][two])
    return low, high
