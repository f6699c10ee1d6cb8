"""Membership with zero tolerance where rounding is large, and regions without any room."""

from fractions import Fraction

import pytest
import torch

from certus.core.random import per_input
from certus.threats import L1, L2, Box, Linf

NORMS = {"linf": Linf, "l2": L2, "l1": L1}
B, SHAPE = 6, (2, 4)


def exact(number):
    return Fraction(float(number))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("norm", "eps"),
    [
        ("l2", 1e-6),
        ("l1", 1e-6),
        ("l1", 0.1),
        ("l2", 0.1),
        ("l2", 5.0),
        ("l1", 5.0),
    ],
)
def test_large_inputs_are_projected_inside(norm, eps, dtype):
    x = torch.rand(20, 3, 20, 20, dtype=dtype)
    region = NORMS[norm](eps).region(x)
    for far in (2 * eps, 1.0, 100.0):
        assert bool(region.contains(region.project(x + far * torch.randn_like(x))).all())
    assert all(
        bool(region.contains(region.sample(per_input(k, range(20)))).all()) for k in range(5)
    )


@pytest.mark.parametrize("clip", [None, (0.0, 1.0)])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_without_room_everything_projects_to_the_input(norm, clip):
    x = torch.rand(B, *SHAPE)
    region = NORMS[norm](0.0, clip=clip).region(x)
    for far in (0.1, 10.0, 1000.0):
        assert torch.equal(region.project(x + far * torch.randn_like(x)), x)
    assert torch.equal(region.sample(per_input(0, range(B))), x)
    low, high = region.linear_range(torch.randn(2, 1, *SHAPE))
    torch.testing.assert_close(low, high)
    assert float(region.l2_extent(x).max()) == 0.0


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_elements_without_room_do_not_move(norm):
    x = torch.rand(B, *SHAPE, dtype=torch.float64)
    eps = 0.3 * (torch.rand(B, *SHAPE, dtype=torch.float64) > 0.5)
    region = NORMS[norm](eps).region(x)
    points = region.project(x + 0.1 * eps * torch.randn_like(x))
    assert bool(region.contains(points).all()) and torch.equal(points[eps == 0], x[eps == 0])
    nudge = x + 1e-9 * (eps == 0)
    assert not bool(region.contains(nudge)[(eps == 0).flatten(1).any(1)].any())


def test_members_of_a_linf_ball_are_within_eps_exactly():
    x = torch.rand(50, 100)
    region = Linf(1e-3, clip=None).region(x)
    move = (region.project(x + torch.randn_like(x)).double() - x.double()).abs()
    assert float(move.max()) <= 1e-3


def test_an_l1_step_keeps_its_size_under_ties():
    x = torch.rand(3, 40)
    step = L1(1.0, clip=None).region(x).steepest(torch.ones(3, 40))
    torch.testing.assert_close(step.flatten(1).abs().sum(1), torch.ones(3))


@pytest.mark.parametrize("eps", [0.1, 0.7, 1 / 3, 2e-3])
def test_limits_that_are_no_numbers_of_the_dtype_are_rounded_outward(eps):
    """In rational arithmetic: one of these eps is rounded up to float32, another one down."""
    x = torch.rand(40, 8)
    cube, ball = (norm(eps, clip=None).region(x) for norm in (Linf, L2))
    for region in (cube, ball):
        ends = zip(x.flatten(), region.lower.flatten(), region.upper.flatten(), strict=True)
        for own, low, high in ends:
            assert exact(low) <= exact(own) - Fraction(eps)
            assert exact(high) >= exact(own) + Fraction(eps)


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("eps", [0.1, 0.7, 1 / 3, 2e-3])
def test_a_balls_reach_is_at_least_its_eps(norm, eps):
    """Around zero a row with one entry meets no other rounding than that of eps."""
    region = NORMS[norm](eps, clip=None).region(torch.zeros(1, 3))
    low, high = region.linear_range(torch.eye(3).view(3, 1, 3))
    assert all(exact(end) <= -Fraction(eps) for end in low.flatten())
    assert all(exact(end) >= Fraction(eps) for end in high.flatten())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_box_in_float64_is_covered_in_the_models_dtype(dtype):
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(1, 50, dtype=torch.float64, generator=generator)
    high = low + torch.rand(1, 50, dtype=torch.float64, generator=generator)
    region = Box(low, high).region(((low + high) / 2).to(dtype))
    assert region.lower.dtype == dtype
    assert bool((region.lower.double() <= low).all() & (region.upper.double() >= high).all())


def test_the_farthest_corner_is_no_nearer_than_it_is():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(200, 3, generator=generator)
    region = Linf(0.1, clip=None).region(x)
    for b, extent in enumerate(region.l2_extent(x)):
        sides = zip(x[b], region.lower[b], region.upper[b], strict=True)
        square = sum(
            max(exact(own) - exact(low), exact(high) - exact(own)) ** 2 for own, low, high in sides
        )
        assert exact(extent) ** 2 >= square


@pytest.mark.parametrize(("norm", "edge"), [("l2", [0.3, 0.4, 0.0]), ("l1", [0.3, 0.2, 0.0])])
def test_a_point_just_outside_is_no_member(norm, edge):
    """Not at a corner of the bounding box, which would be seen by its limits alone."""
    region = NORMS[norm](0.5, clip=None).region(torch.zeros(1, 3, dtype=torch.float64))
    point = torch.tensor([edge], dtype=torch.float64)
    assert region.contains(point * (1 - 1e-9)).tolist() == [True]
    assert region.contains(point * (1 + 1e-9)).tolist() == [False]
