"""Patches: exact ranges against every place of the square, projection, membership, bounds on top."""

import pytest
import torch
from tests.threats.region_laws import check

from certus.attacks import PGD
from certus.bounding import IBP, Crown
from certus.bounding.outer_range import ranges
from certus.core import ArgumentError
from certus.core.random import per_input
from certus.graph import trace
from certus.threats import Patch, Patched, parse

CLIP = (-0.2, 1.0)
SHAPE = (2, 3, 4)


def inputs(*shape, dtype=torch.float64):
    return torch.rand(3, *(shape or SHAPE), dtype=dtype)


def squares(size, height, width):
    """The mask of every square that lies in the image."""
    high, wide = min(size, height), min(size, width)
    for top in range(height - high + 1):
        for left in range(width - wide + 1):
            mask = torch.zeros(height, width, dtype=torch.bool)
            mask[top : top + high, left : left + wide] = True
            yield mask


@pytest.mark.parametrize("size", [0, 1, 2, 3, 9])
def test_region_laws(size):
    x = inputs()
    region = Patch(size, CLIP).region(x)
    if size:
        check(region)
        assert torch.equal(region.lower, torch.full_like(x, CLIP[0]))
    else:
        assert torch.equal(region.lower, x) and torch.equal(region.upper, x)
        assert torch.equal(region.project(x + 1), x)
        assert torch.equal(region.sample(per_input(0, range(3))), x)
        assert not bool(region.steepest(torch.ones_like(x)).any())


@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_the_range_is_that_of_all_places(size):
    x = inputs()
    rows = torch.randn(4, 3, *SHAPE, dtype=x.dtype)
    low, high = Patch(size, CLIP).region(x).linear_range(rows)
    least, most = [], []
    for mask in squares(size, *SHAPE[1:]):
        ends = torch.stack([torch.where(mask, rows * end, rows * x) for end in CLIP])
        least.append(ends.amin(0).flatten(2).sum(2))
        most.append(ends.amax(0).flatten(2).sum(2))
    torch.testing.assert_close(low, torch.stack(least).amin(0))
    torch.testing.assert_close(high, torch.stack(most).amax(0))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_projection_is_the_nearest_of_all_places(size):
    x = inputs()
    target = x + torch.randn_like(x)
    gap = (Patch(size, CLIP).region(x).project(target) - target).flatten(1).norm(dim=1)
    best = [
        (torch.where(mask, target.clamp(*CLIP), x) - target).flatten(1).norm(dim=1)
        for mask in squares(size, *SHAPE[1:])
    ]
    torch.testing.assert_close(gap, torch.stack(best).amin(0))


def test_membership_is_one_square_without_tolerance():
    x = torch.full((1, 2, 5, 5), 0.5)
    region = Patch(3).region(x)

    def changed(*pixels, value=0.1):
        moved = x.clone()
        for c, i, j in pixels:
            moved[0, c, i, j] = value
        return bool(region.contains(moved))

    assert changed() and changed((0, 1, 1), (1, 3, 3), (0, 1, 3), (1, 3, 1))
    assert changed((0, 4, 4), (1, 2, 2))
    assert not changed((0, 0, 0), (1, 3, 0)) and not changed((0, 0, 0), (1, 0, 3))
    assert not changed((0, 0, 0), (0, 4, 4))  # no wrap-around
    assert changed((0, 0, 0), value=1.0) and not changed((0, 0, 0), value=1.0000001)
    assert not changed((0, 0, 0), value=float("nan"))


def test_members_are_exactly_those_of_the_definition():
    bits = torch.arange(2**12)[:, None] >> torch.arange(12) & 1
    moved = bits.view(-1, 1, 3, 4).float()
    outside = [(moved[:, 0] * ~mask).flatten(1).any(1) for mask in squares(2, 3, 4)]
    inside = ~torch.stack(outside).all(0)
    assert torch.equal(Patch(2).region(torch.zeros_like(moved)).contains(moved), inside)
    assert 1 < int(inside.sum()) < 200


def test_samples_reach_every_place():
    x = inputs()
    region, seen = Patch(2, CLIP).region(x), torch.zeros(3, *SHAPE[1:])
    for k in range(60):
        moved = (region.sample(per_input(k, range(3))) != x).any(1)
        assert bool((moved.flatten(1).sum(1) == 4).all())
        seen += moved
    assert bool((seen > 0).all())


def test_sizes_may_differ_between_inputs():
    x, sizes = inputs(), (0, 1, 3)
    region = Patch(torch.tensor(sizes)).region(x)
    rows = torch.randn(3, 1, *SHAPE, dtype=x.dtype)
    found, target = region.linear_range(rows), x + torch.randn_like(x)
    for b, size in enumerate(sizes):
        alone = Patch(size).region(x[b : b + 1])
        for mine, own in zip(found, alone.linear_range(rows), strict=True):
            torch.testing.assert_close(mine[:, b], own[:, 0])
        assert torch.equal(region.project(target)[b], alone.project(target[b : b + 1])[0])
    assert Patch(torch.tensor(sizes)).radius(x).tolist() == list(sizes)


def test_rigorous_ranges_lie_below_exact_ones():
    x, rows = inputs(3, 8, 8, dtype=torch.float32), torch.randn(9, 3, 3, 8, 8)
    region = Patch(3).region(x)
    found, error = ranges[type(region)](region, rows, 4)
    exact = Patch(3).region(x.double()).linear_range(rows.double())[0]
    assert bool((found.double() - error.double() <= exact).all())
    assert bool(((exact - found).abs() < 1e-4 * (1 + exact.abs())).all())


def net():
    torch.manual_seed(1)
    layers = torch.nn.Conv2d(2, 4, 2), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(24, 3)
    return torch.nn.Sequential(*layers).double().eval()


@pytest.mark.parametrize("method", [IBP(), Crown()], ids=["ibp", "crown"])
def test_bounds_hold_for_every_patch(method):
    x, model = inputs(), net()
    graph, region = trace(model, x), Patch(2).region(x)
    b = method(graph, region)
    goals = torch.cat([torch.eye(3), -torch.eye(3)]).double()
    for mask in squares(2, *SHAPE[1:]):
        for k in range(40):
            u = torch.rand_like(x)
            z = model(torch.where(mask, u if k % 2 else u.round(), x))
            assert bool(((z >= b.lower - 1e-12) & (z <= b.upper + 1e-12)).all())
    for goal in goals:  # the first layer's ranges, and an attack's ends
        start = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((model(start) @ goal).sum(), start)
        z = model(region.project(x + region.steepest(gradient)))
        assert bool(((z >= b.lower - 1e-12) & (z <= b.upper + 1e-12)).all())
    one = method(graph, Patch(1).region(x))
    assert bool((one.upper <= b.upper + 1e-12).all()) and bool((one.upper < b.upper).any())


def test_a_single_pixel_is_known_by_hand():
    """The sum of all pixels of one channel: one pixel of the square at most."""
    x = torch.full((1, 1, 2, 2), 0.25)
    rows = torch.ones(1, 1, 1, 2, 2)
    low, high = Patch(1).region(x).linear_range(rows)
    assert (low.item(), high.item()) == (0.75, 1.75)


def test_attacks_stay_in_the_patch():
    x, model = inputs(), net()
    graph, region = trace(model, x), Patch(2).region(x)
    label = model(x).argmax(1)
    found = PGD(steps=10, restarts=2)(graph, x, label, Patch(2))
    assert bool(region.contains(found.inputs).all())
    clean = model(x).sort(dim=1, descending=True).values
    assert bool((found.margin < clean[:, 0] - clean[:, 1]).any())


def test_what_is_refused_and_what_is_parsed():
    threat = parse("patch:5")
    assert isinstance(threat, Patch) and threat.describe() == "patch:5" and threat.norm == "patch"
    assert isinstance(threat.region(inputs()), Patched)
    for bad in (0.5, -1, torch.tensor([1.0, 0.5])):
        with pytest.raises(ArgumentError):
            Patch(bad)
    with pytest.raises(ArgumentError, match="clip"):
        Patch(1, clip=None)
    with pytest.raises(ArgumentError, match="images"):
        Patch(1).region(torch.rand(3, 4))
    with pytest.raises(ArgumentError, match="outside clip"):
        Patch(1).region(inputs() + 1)
    for bad in ("patch:", "patch:1.5", "patch:-1"):
        with pytest.raises(ArgumentError):
            parse(bad)
