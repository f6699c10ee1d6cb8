"""Members and corners of every region against the sets as they were written, in rational arithmetic."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from certus.attacks import fit
from certus.core import ArgumentError
from certus.core.random import per_input
from certus.threats import L0, L1, L2, Box, Linf, Patch, Product
from certus.threats.rounding import added, rounded
from certus.threats.transformed import brightness_contrast

B, SHAPE = 4, (1, 2, 3)
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
CLIPS = [None, (0.1, 0.7), (-1 / 3, 2 / 3)]


def exact(tensor):
    """Each input as a list of fractions."""
    return [[Fraction(v) for v in row] for row in tensor.double().flatten(1).tolist()]


def clean(dtype, clip):
    """Values of many sizes, on limits and within a rounding of them."""
    low, high = clip or (0.0, 1.0)
    x = low + (high - low) * torch.rand(B, *SHAPE, dtype=torch.float64)
    ends = torch.tensor([low, high], dtype=torch.float64)
    x = x.to(dtype).clamp(
        *(rounded(ends, dtype, up=True)[:1].item(), rounded(ends, dtype, up=False)[1:].item())
    )
    x[0, ..., 0], x[0, ..., 1] = rounded(ends, dtype, up=True)
    x[1, ..., 0], x[1, ..., 1] = ends.to(dtype)
    return x


def in_ball(p, x, eps, clip):
    def member(b, point):
        moves = [abs(v - c) for v, c in zip(point, x[b], strict=True)]
        if any(m and not e for m, e in zip(moves, eps[b], strict=True)):
            return False
        sizes = [m / e if e else Fraction(0) for m, e in zip(moves, eps[b], strict=True)]
        inside = max(sizes) <= 1 if p is None else sum(s**p for s in sizes) <= 1
        return inside and all(clip is None or clip[0] <= v <= clip[1] for v in point)

    return member


def in_sparse(count, x, clip):
    def member(b, point):
        moved = [v for v, c in zip(point, x[b], strict=True) if v != c]
        return len(moved) <= count and all(clip[0] <= v <= clip[1] for v in point)

    return member


def in_patch(size, x, clip):
    def member(b, point):
        moved = [i for i in range(6) if point[i] != x[b][i]]
        if not all(clip[0] <= v <= clip[1] for v in point):
            return False
        if not moved:
            return True
        rows, columns = {i // 3 for i in moved}, {i % 3 for i in moved}
        return all(max(line) - min(line) < size for line in (rows, columns))

    return member


def corners(p, x, eps, clip):
    """The exact bounding box of a ball."""
    for b in range(B):
        for i, (c, e) in enumerate(zip(x[b], eps[b], strict=True)):
            low, high = c - e, c + e
            if clip is not None:
                low, high = max(low, Fraction(clip[0])), min(high, Fraction(clip[1]))
            yield b, i, low, high


def tried(region):
    """Points that rounding may push out: ends of steps, samples, projections from near and far."""
    x = region.center
    found = [region.sample(per_input(k, range(len(region)))) for k in range(8)]
    for far in (1e-7, 1e-3, 0.2, 5.0):
        found += [region.project(x + far * torch.randn_like(x)) for _ in range(4)]
        found += [region.project(x + far * 10 * region.steepest(torch.randn_like(x)))]
    found += [region.project(region.lower), region.project(region.upper)]
    found += [fit(region, x, region.lower), fit(region, x, region.upper)]
    found += [region.lower, region.upper, x]
    near = [torch.nextafter(p, torch.full_like(p, s)) for p in found[:6] for s in (-9.0, 9.0)]
    return found + near if x.dtype.itemsize > 2 else found


def judge(region, member):
    """`contains` never says yes outside of the set; it says yes to nearly all that lies inside."""
    agreed = missed = 0
    for points in tried(region):
        said = region.contains(points).tolist()
        for b, point in enumerate(exact(points)):
            true = member(b, point)
            assert true or not said[b], (b, [float(v) for v in point])
            agreed, missed = agreed + said[b], missed + (true and not said[b])
    assert missed == 0
    return agreed


@pytest.mark.parametrize("clip", CLIPS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["number", "input", "element"])
@pytest.mark.parametrize(("norm", "p"), [(Linf, None), (L2, 2), (L1, 1)])
def test_balls(norm, p, kind, dtype, clip):
    x = clean(dtype, clip)
    sizes = {
        "number": torch.tensor(0.1, dtype=torch.float64),
        "input": torch.tensor([0.1, 1e-9, 0.0, 1 / 3], dtype=torch.float64),
        "element": 0.3 * torch.rand(B, *SHAPE, dtype=torch.float64),
    }
    eps = 0.1 if kind == "number" else sizes[kind]
    region = norm(eps, clip=clip).region(x)
    whole = sizes[kind] if kind == "element" else sizes[kind].reshape(-1, 1, 1, 1).expand_as(x)
    reach, center = exact(whole), exact(x)
    agreed = judge(region, in_ball(p, center, reach, clip))
    assert agreed > 0
    low, high = exact(region.lower), exact(region.upper)
    for b, i, least, most in corners(p, center, reach, clip):
        assert low[b][i] <= least and most <= high[b][i]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_boxes(dtype):
    low = torch.rand(B, *SHAPE, dtype=torch.float64) - 0.5
    high = low + torch.rand(B, *SHAPE, dtype=torch.float64) ** 8
    low[0, ..., 0], high[0, ..., 0] = 0.1, 0.3
    box = Box(low, high).region(((low + high) / 2).to(dtype))
    ends = exact(low), exact(high)

    def member(b, point):
        return all(a <= v <= c for a, v, c in zip(ends[0][b], point, ends[1][b], strict=True))

    judge(box, member)
    for given, found in ((ends[0], box.lower), (ends[1], box.upper)):
        sign = 1 if given is ends[0] else -1
        for a, c in zip(given, exact(found), strict=True):
            assert all(sign * v >= sign * w for v, w in zip(a, c, strict=True))
    index = torch.tensor([2, 0])
    part = box.select(index)
    for points in tried(box):
        assert torch.equal(part.contains(points[index]), box.contains(points)[index])


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("clip", CLIPS[1:], ids=str)
def test_sets_of_features(clip, dtype):
    x = clean(dtype, clip)
    assert judge(L0(2, clip).region(x), in_sparse(2, exact(x), clip)) > 0
    assert judge(Patch(2, clip).region(x), in_patch(2, exact(x), clip)) > 0


def test_a_product_keeps_what_its_parts_keep():
    x = clean(torch.float32, (0.1, 0.7))
    low, high = (torch.full((B, 2), v, dtype=torch.float64) for v in (0.1, 0.3))
    flat = torch.full((B, 2), 0.2)
    region = Product([L2(0.1, (0.1, 0.7)).region(x), Box(low, high).region(flat)])
    ball = in_ball(2, exact(x), [[Fraction(0.1)] * 6] * B, (0.1, 0.7))

    def member(b, point):
        return ball(b, point[:6]) and all(0.1 <= v <= 0.3 for v in point[6:])

    assert judge(region, member) > 0
    assert not bool(region.contains(torch.cat([x.flatten(1), flat + 0.1], 1)).any())
    assert bool(region.allows(torch.cat([x.flatten(1), flat + 0.1], 1)).all())


def test_brightness_is_no_more_than_was_written():
    """Parameters of members stay within float64 limits that float32 would round up."""
    region = brightness_contrast(torch.rand(B, *SHAPE), 0.1, 0.3)
    assert float(region._region.upper[0, 0]) > 0.1
    for points in tried(region):
        z = region._parameters(points)
        assert bool((z.abs() <= torch.tensor([0.1, 0.3], dtype=torch.float64)).all())


def test_a_box_between_two_numbers_has_no_member():
    limit = torch.full((1, 2), 0.1, dtype=torch.float64)
    box, x = Box(limit, limit), torch.full((1, 2), 0.1)
    region = box.region(x)
    assert bool(region.allows(x).all()) and not bool(region.contains(x).any())
    for points in tried(region):
        assert not bool(region.contains(points).any())
    assert float(region.lower[0, 0]) < 0.1 < float(region.upper[0, 0])
    assert bool(box.region(limit).contains(limit).all())


def test_sums_are_rounded_both_ways():
    a = torch.randn(2000, dtype=torch.float64) * 10.0 ** torch.randint(-20, 3, (2000,))
    b = torch.randn(2000, dtype=torch.float64) * 10.0 ** torch.randint(-20, 3, (2000,))
    a[:3], b[:3] = (
        torch.tensor([0.5, 1.0, 1.0]).double(),
        torch.tensor([0.25, 1e-20, -1e-300]).double(),
    )
    for x, y, low, high in zip(*(t.tolist() for t in (a, b, *added(a, b))), strict=True):
        true = Fraction(x) + Fraction(y)
        assert Fraction(low) <= true <= Fraction(high)
        assert (low == high) == (Fraction(x + y) == true)


def test_balls_of_many_values_are_decided_without_fractions(monkeypatch):
    """Projections of large inputs go clearly inside, so that attacks stay fast."""
    monkeypatch.setattr("certus.threats.membership._exactly", None)
    for norm in (L1, L2):
        for dtype in (torch.float32, torch.float64):
            x = torch.rand(3, 500, dtype=dtype)
            region = norm(2.0).region(x)
            points = region.project(x + torch.randn_like(x))
            assert bool(region.contains(points).all())


def test_numbers_that_float64_does_not_hold_are_refused():
    for eps in (Decimal("0.1"), Fraction(1, 3), 2**53 + 1):
        with pytest.raises(ValueError, match="float64"):
            Linf(eps, clip=None)
    with pytest.raises(ValueError, match="float64"):
        L2(0.1, clip=(0, Decimal("0.7")))
    assert Linf(Decimal("0.5")).describe() == "linf:0.5"
    with pytest.raises(ValueError, match="float64"):
        Box(torch.full((1, 1), 2**53 + 1), torch.full((1, 1), 2**60))
    whole = Box(torch.zeros(1, 2, dtype=torch.int64), torch.ones(1, 2, dtype=torch.int64))
    assert whole.region(torch.rand(3, 2)).lower.dtype == torch.float32


@pytest.mark.parametrize("threat", [L0(1, clip=(0.0, 0.1)), Patch(1, clip=(0.0, 0.1))], ids=repr)
def test_a_value_beyond_the_clip_range_is_no_witness_also_where_it_stays(threat):
    x = torch.full((1, 1, 2, 2), 0.1)  # a little more than a tenth
    region = threat.region(x)
    assert bool(region.allows(x)) and not bool(region.contains(x))
    assert bool(threat.region(x * 0.9).contains(x * 0.9))


@pytest.mark.parametrize("clip", [0.5, (), (0.0,), (0.0, 1.0, 2.0), "ab", {0: 1, 1: 2}, (1.0, 0.0)])
def test_a_range_is_two_numbers(clip):
    with pytest.raises(ArgumentError, match="clip must be"):
        Linf(0.1, clip=clip)


def test_a_range_may_come_as_an_array():
    for clip in (torch.tensor([0.0, 1.0]), np.array([0.0, 1.0]), [0, 1]):
        assert bool(
            Linf(0.1, clip=clip).region(torch.full((1, 2), 0.5)).contains(torch.full((1, 2), 0.55))
        )
    with pytest.raises(ArgumentError, match="finite"):
        Linf(Decimal("nan"))
