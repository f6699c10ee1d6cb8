"""Balls cut by the clip box: exact on small cases, outer always, never looser than either alone."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from certus.core.random import per_input
from certus.threats import L1, L2
from certus.threats.cut import cut_l1, cut_l2


def l2_optimum(h, low, high):
    """Bisection for the multiplier in float64, a primal feasible point: its value is a lower bound."""
    small, large = 1e-12, float(h.norm()) + 1.0
    for _ in range(200):
        m = (small + large) / 2
        u = torch.minimum(torch.maximum(h / m, low), high)
        small, large = (m, large) if float(u.norm()) > 1 else (small, m)
    u = torch.minimum(torch.maximum(h / large, low), high)
    assert float(u.norm()) <= 1
    return float(h @ u)


def l1_optimum(h, low, high):
    """u = p - q with 0 <= p <= high, 0 <= q <= -low, sum (p + q) <= 1."""
    cost = np.concatenate([-h.numpy(), h.numpy()])
    limits = [(0, float(v)) for v in torch.cat([high, -low])]
    return -linprog(cost, A_ub=np.ones((1, 2 * len(h))), b_ub=np.ones(1), bounds=limits).fun


@pytest.mark.parametrize("size", [1, 2, 7, 40])
@pytest.mark.parametrize("room", [0.02, 0.3, 1.0])
@pytest.mark.parametrize(("cut", "optimum"), [(cut_l2, l2_optimum), (cut_l1, l1_optimum)])
def test_the_bound_is_the_optimum(cut, optimum, room, size):
    h = torch.randn(4, 3, size, dtype=torch.float64) * torch.rand(size).exp().pow(3)
    h[0] = 0.0
    low = -(room * 2 * torch.rand(3, size, dtype=torch.float64)).clamp(max=1)
    high = (room * 2 * torch.rand(3, size, dtype=torch.float64)).clamp(max=1)
    low[:, ::3], high[:, 1::4] = 0.0, 0.0
    found = cut(h, low, high)
    for r in range(4):
        for b in range(3):
            best = optimum(h[r, b], low[b], high[b])
            assert found[r, b] >= best - 1e-9
            assert found[r, b] <= best + 1e-6 * (1 + abs(best))


def test_many_coefficients_stay_outer_in_l1():
    """More than the search looks at: still above the optimum, and below the plain bounds."""
    h = torch.randn(2, 2, 900, dtype=torch.float64)
    low, high = torch.full((2, 900), -0.001).double(), torch.full((2, 900), 0.001).double()
    found = cut_l1(h, low, high)
    for r in range(2):
        assert found[r, 0] >= l1_optimum(h[r, 0], low[0], high[0]) - 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", [L2, L1])
def test_ranges_lie_inside_both_and_hold_samples(norm, dtype):
    x = torch.rand(3, 1, 4, 4, dtype=dtype).mul(1.5).sub(0.25).clamp(0, 1)
    eps = 0.3 + torch.rand(3, 1, 4, 4)
    eps[:, :, 0] = 0.0
    region, free = norm(eps).region(x), norm(eps, clip=None).region(x)
    rows = torch.randn(6, 3, 1, 4, 4, dtype=dtype)
    low, high = region.linear_range(rows)
    plain, box = free.linear_range(rows), region._box.linear_range(rows)
    assert bool((high <= torch.minimum(plain[1], box[1])).all())
    assert bool((low >= torch.maximum(plain[0], box[0])).all())
    assert float((torch.minimum(plain[1], box[1]) - high).max()) > 1e-2
    tiny = 1e-5 if dtype == torch.float32 else 1e-12
    for k in range(30):
        value = torch.einsum(
            "rbn,bn->rb", rows.flatten(2), region.sample(per_input(k, range(3))).flatten(1)
        )
        assert bool(((value >= low - tiny) & (value <= high + tiny)).all())


@pytest.mark.parametrize("norm", [L2, L1])
def test_the_gradient_is_that_of_the_bound(norm):
    x = torch.rand(2, 6, dtype=torch.float64).round(decimals=1)
    region = norm(0.7).region(x)
    rows = torch.randn(3, 2, 6, dtype=torch.float64, requires_grad=True)
    sum(region.linear_range(rows)).sum().backward()
    step = 1e-6 * torch.randn_like(rows)
    with torch.no_grad():
        ahead, behind = (sum(region.linear_range(rows + s * step)).sum() for s in (1, -1))
    torch.testing.assert_close(
        ((rows.grad * step).sum()), (ahead - behind) / 2, rtol=1e-3, atol=1e-9
    )


@pytest.mark.parametrize("norm", [L2, L1])
def test_nan_comes_through_and_zero_rows_give_the_centre(norm):
    region = norm(0.5).region(torch.rand(2, 5))
    rows = torch.zeros(2, 1, 5)
    rows[1] = float("nan")
    low, high = region.linear_range(rows)
    assert bool((low[0].abs() + high[0].abs() < 1e-6).all())
    assert bool(low[1].isnan().all() & high[1].isnan().all())


@pytest.mark.parametrize("norm", [L2, L1])
def test_picked_coordinates_keep_the_range(norm):
    x, columns = torch.rand(3, 6, dtype=torch.float64), torch.tensor([5, 0, 3])
    region = norm(0.4 + torch.rand(3, 6)).region(x)
    rows = torch.zeros(4, 3, 6, dtype=torch.float64)
    rows[:, :, columns] = torch.randn(4, 3, 3, dtype=torch.float64)
    part = region.picked(lambda t: t[:, columns]).linear_range(rows[:, :, columns])
    for a, b in zip(part, region.linear_range(rows), strict=True):
        torch.testing.assert_close(a, b)
