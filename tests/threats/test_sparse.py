"""L0: exact ranges against enumeration, nearest projections, membership without tolerance."""

from itertools import combinations

import pytest
import torch
from tests.threats.region_laws import check

from certus.core import ArgumentError
from certus.threats import L0, L0Pixels, Sparse, parse

CLIP = (-0.2, 1.0)


def inputs(*shape, dtype=torch.float64):
    return torch.rand(3, *shape, dtype=dtype)


def extremes(x, k, pixels):
    """Every point that has the best limit or the old value on some k features, and old values else."""
    features = x.shape[1] if x.ndim == 2 else x[0, 0].numel()
    flat = x.reshape(len(x), -1, features) if pixels else x.flatten(1).unsqueeze(1)
    for chosen in combinations(range(flat.shape[2]), k):
        mask = torch.zeros(flat.shape[2], dtype=torch.bool)
        mask[list(chosen)] = True
        yield mask, flat


@pytest.mark.parametrize("k", [0, 1, 2, 3, 40])
@pytest.mark.parametrize("pixels", [False, True])
def test_region_laws(k, pixels):
    x = inputs(3, 2, 2)
    region = (L0Pixels if pixels else L0)(k, CLIP).region(x)
    if k:
        check(region)
    else:
        assert torch.equal(region.lower, x) and torch.equal(region.upper, x)
        assert torch.equal(region.project(x + 1), x)


@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize("k", [1, 2])
def test_the_range_is_that_of_all_choices(k, pixels):
    x = inputs(3, 2, 2)
    rows = torch.randn(4, 3, 3, 2, 2, dtype=x.dtype)
    low, high = (L0Pixels if pixels else L0)(k, CLIP).region(x).linear_range(rows)
    least, most = [], []
    for mask, flat in extremes(x, k, pixels):
        r = rows.reshape(4, *flat.shape)
        ends = torch.stack([torch.where(mask, r * end, r * flat) for end in CLIP])
        least.append(ends.amin(0).flatten(2).sum(2))
        most.append(ends.amax(0).flatten(2).sum(2))
    torch.testing.assert_close(low, torch.stack(least).amin(0))
    torch.testing.assert_close(high, torch.stack(most).amax(0))


def test_membership_counts_features_and_has_no_tolerance():
    x = torch.full((1, 4), 0.5)
    region = L0(2).region(x)
    assert region.contains(torch.tensor([[0.0, 1.0, 0.5, 0.5]])).item()
    assert not region.contains(torch.tensor([[0.0, 1.0, 0.5, 0.50001]])).item()
    assert not region.contains(torch.tensor([[0.0, 1.0000001, 0.5, 0.5]])).item()
    image = torch.full((1, 3, 2, 2), 0.5)
    moved = image.clone()
    moved[0, :, 0, 1] = 0.1
    assert L0Pixels(1).region(image).contains(moved).item()
    assert not L0(1).region(image).contains(moved).item()


@pytest.mark.parametrize("pixels", [False, True])
def test_projection_is_the_nearest_of_all_choices(pixels):
    x = inputs(2, 1, 3)
    region = (L0Pixels if pixels else L0)(2, CLIP).region(x)
    target = x + torch.randn_like(x)
    gap = (region.project(target) - target).flatten(1).norm(dim=1)
    best = []
    for mask, flat in extremes(x, 2, pixels):
        t = target.reshape(flat.shape)
        best.append((torch.where(mask, t.clamp(*CLIP), flat) - t).flatten(1).norm(dim=1))
    torch.testing.assert_close(gap, torch.stack(best).amin(0))


def test_counts_may_differ_between_inputs():
    x = inputs(6)
    region = L0(torch.tensor([0, 1, 6])).region(x)
    rows = torch.randn(3, 1, 6, dtype=x.dtype)
    found = region.linear_range(rows)
    for b, k in enumerate((0, 1, 6)):
        alone = L0(k).region(x[b : b + 1]).linear_range(rows)
        torch.testing.assert_close(found[0][:, b], alone[0][:, 0])
        torch.testing.assert_close(found[1][:, b], alone[1][:, 0])
    assert L0(torch.tensor([0, 1, 6])).radius(x).tolist() == [0, 1, 6]


def test_picked_coordinates_keep_the_range():
    x, columns = inputs(6), torch.tensor([4, 1, 2])
    region = L0(2).region(x)
    rows = torch.zeros(4, 3, 6, dtype=x.dtype)
    rows[:, :, columns] = torch.randn(4, 3, 3, dtype=x.dtype)
    part = region.picked(lambda t: t[:, columns]).linear_range(rows[:, :, columns])
    for a, b in zip(part, region.linear_range(rows), strict=True):
        torch.testing.assert_close(a, b)
    assert L0Pixels(1).region(inputs(3, 2, 2)).picked(lambda t: t) is None


def test_limits_are_rounded_outward():
    x = torch.full((1, 2), 0.3)
    region = L0(1, clip=(0.1, 0.7)).region(x)
    assert float(region.lower.double().max()) <= 0.1 and float(region.upper.double().min()) >= 0.7
    for far in (-9.0, 9.0):
        assert region.contains(region.project(x + far * torch.tensor([[1.0, 0.0]]))).item()


def test_what_is_refused_and_what_is_parsed():
    assert isinstance(parse("l0:3"), L0) and parse("l0:3").describe() == "l0:3"
    assert isinstance(parse("l0:3").region(inputs(4)), Sparse)
    for bad in (0.5, -1, torch.tensor([1.0, 0.5])):
        with pytest.raises(ArgumentError):
            L0(bad)
    with pytest.raises(ArgumentError, match="clip"):
        L0(1, clip=None)
    with pytest.raises(ArgumentError, match="pixels need"):
        L0Pixels(1).region(inputs(4))
    with pytest.raises(ArgumentError, match="whole"):
        L0(torch.tensor([[1, 2], [1, 1], [1, 1]])).region(inputs(2))
