"""Laws of every region: membership, projection, samples, linear range, extent, selection."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from certus.core.random import per_input
from certus.threats import L0, L1, L2, Ball, Box, Linf, Patch

NORMS = {"linf": Linf, "l2": L2, "l1": L1}
P = {"linf": float("inf"), "l2": 2.0, "l1": 1.0}
B, SHAPE = 6, (2, 4)
CLIPS = [None, (-0.1, 1.0)]


def clean(dtype=torch.float64):
    """Inputs in [0, 1], some values at the limits."""
    return (1.4 * torch.rand(B, *SHAPE, dtype=dtype) - 0.2).clamp(0, 1)


def eps_of(kind, dtype=torch.float64):
    match kind:
        case "scalar":
            return 0.3
        case "input":
            return torch.linspace(0.05, 0.6, B, dtype=dtype)
        case "element":
            return 0.05 + 0.5 * torch.rand(B, *SHAPE, dtype=dtype)
        case "shared":
            return 0.05 + 0.5 * torch.rand(1, *SHAPE, dtype=dtype)


EPS = ["scalar", "input", "element", "shared"]


@pytest.fixture(params=[(n, e, c) for n in NORMS for e in EPS for c in CLIPS], ids=str)
def case(request):
    """(norm, x, eps spread to x, clip, region)."""
    norm, kind, clip = request.param
    x, eps = clean(), eps_of(kind)
    spread = torch.as_tensor(eps, dtype=x.dtype)
    if kind == "input":
        spread = spread.reshape(-1, 1, 1)
    return norm, x, spread.expand_as(x), clip, NORMS[norm](eps, clip=clip).region(x)


def size_of(norm, x, eps, points):
    """||(points - x) / eps||_p."""
    return ((points - x) / eps).flatten(1).norm(p=P[norm], dim=1)


def test_contains_is_the_definition(case):
    norm, x, eps, clip, region = case
    inside = outside = 0
    for scale in (0.2, 0.5, 1.0, 2.0):
        points = x + scale * eps * (2 * torch.rand_like(x) - 1)
        if clip is not None and scale in (0.2, 1.0):
            points = points.clamp(*clip)
        size = size_of(norm, x, eps, points)
        legal = torch.ones(B, dtype=torch.bool)
        if clip is not None:
            legal = ((points >= clip[0]) & (points <= clip[1])).flatten(1).all(1)
        clear = (size - 1).abs() > 1e-9
        expected = (size <= 1) & legal
        assert torch.equal(region.contains(points)[clear], expected[clear])
        inside, outside = inside + int(expected.sum()), outside + int((~expected).sum())
    assert inside and outside
    assert bool(region.contains(x).all())
    assert not bool(region.contains(x * float("nan")).any())
    assert not bool(region.contains(x + float("inf")).any())


def test_contains_has_no_tolerance(case):
    norm, x, eps, _, _ = case
    region = NORMS[norm](eps, clip=None).region(x)
    axis = torch.zeros_like(x)
    axis[:, 0, 0] = 1.0
    assert bool(region.contains(x + eps * axis * (1 - 1e-12)).all())
    assert not bool(region.contains(x + eps * axis * (1 + 1e-12)).any())


def test_projection_lands_inside_and_leaves_members_alone(case):
    _, x, _, _, region = case
    for far in (0.1, 1.0, 50.0):
        points = region.project(x + far * torch.randn_like(x))
        assert bool(region.contains(points).all())
    members = region.sample(per_input(1, range(B)))
    members = x + 0.99 * (members - x)
    assert bool(region.contains(members).all())
    assert torch.equal(region.project(members), members)


@pytest.mark.parametrize("kind", EPS)
@pytest.mark.parametrize("norm", NORMS)
def test_projection_is_the_nearest_point_without_clip(norm, kind):
    """The variational inequality against members, in units of eps for the balls."""
    x, eps = clean(), eps_of(kind)
    region = NORMS[norm](eps, clip=None).region(x)
    unit = torch.ones_like(x) if norm == "linf" else (region.upper - region.lower) / 2
    target = x + torch.randn_like(x)
    point = region.project(target)
    away = ((target - point) / unit).flatten(1)
    for k in range(30):
        step = ((region.sample(per_input(k, range(B))) - point) / unit).flatten(1)
        assert bool(((away * step).sum(1) <= 1e-9).all())


def test_samples_are_inside_keyed_and_spread(case):
    norm, x, eps, clip, region = case
    draws = torch.stack([region.sample(per_input(k, range(B))) for k in range(60)])
    assert all(bool(region.contains(d).all()) for d in draws)
    again = region.sample(per_input(3, range(B)))
    assert torch.equal(draws[3], again)
    two = torch.tensor([4, 1])
    assert torch.equal(region.select(two).sample(per_input(3, [4, 1])), again[two])
    assert bool((draws.std(0) > 0).all())
    if clip is None:
        size = torch.stack([size_of(norm, x, eps, d) for d in draws])
        assert float(size.max()) > 0.9


def test_linear_range_contains_every_sample(case):
    _, x, _, _, region = case
    rows = torch.randn(5, B, *SHAPE, dtype=x.dtype)
    low, high = region.linear_range(rows)
    assert low.shape == high.shape == (5, B) and bool((low <= high).all())
    for k in range(40):
        points = region.sample(per_input(k, range(B)))
        value = torch.einsum("rbij,bij->rb", rows, points)
        assert bool(((value >= low - 1e-12) & (value <= high + 1e-12)).all())
    for row in range(5):  # the worst corner as well
        for sign in (1, -1):
            step = sign * region.steepest(rows[row])
            value = (rows[row] * region.project(x + 50 * step)).flatten(1).sum(1)
            assert bool(((value >= low[row] - 1e-12) & (value <= high[row] + 1e-12)).all())


def test_linear_range_has_its_closed_form(case):
    norm, x, eps, clip, region = case
    rows = torch.randn(5, B, *SHAPE, dtype=x.dtype)
    q = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}[norm]
    middle = torch.einsum("rbij,bij->rb", rows, x)
    radius = (rows * eps).flatten(2).norm(p=q, dim=2)
    low, high = middle - radius, middle + radius
    if clip is not None:
        box = [(x - eps).clamp(*clip), (x + eps).clamp(*clip)]
        ends = torch.stack([rows * box[0], rows * box[1]])
        low = torch.maximum(low, ends.amin(0).flatten(2).sum(2))
        high = torch.minimum(high, ends.amax(0).flatten(2).sum(2))
    found = region.linear_range(rows)
    if clip is not None and norm != "linf":  # tighter than both; the optimum is in test_cut.py
        assert bool((found[0] >= low - 1e-12).all() & (found[1] <= high + 1e-12).all())
        return
    torch.testing.assert_close(found[0], low)
    torch.testing.assert_close(found[1], high)


def test_shared_rows_equal_repeated_rows(case):
    _, x, _, _, region = case
    rows = torch.randn(3, 1, *SHAPE, dtype=x.dtype)
    shared = region.linear_range(rows)
    repeated = region.linear_range(rows.expand(3, B, *SHAPE))
    for a, b in zip(shared, repeated, strict=True):
        torch.testing.assert_close(a, b)


def optimum(norm, x, eps, clip, row):
    """The largest <row, x'> of a polyhedral region by linear programming: x' = x + up - down."""
    n = x.numel()
    limit = [(0, None)] * (2 * n) if clip is None else None
    if limit is None:
        up, down = (clip[1] - x).clamp(min=0), (x - clip[0]).clamp(min=0)
        limit = [(0, float(v)) for v in torch.cat([up, down])]
    weight = 1 / eps.numpy()
    if norm == "l1":
        rows, most = np.concatenate([weight, weight])[None], np.ones(1)
    else:
        rows = np.concatenate([np.diag(weight), np.diag(weight)], 1)
        most = np.ones(n)
    cost = np.concatenate([-row.numpy(), row.numpy()])
    solved = linprog(cost, A_ub=rows, b_ub=most, bounds=limit)
    assert solved.status == 0
    return float(row @ x) - solved.fun


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_linear_range_against_linear_programming(norm, clip):
    x, eps = clean(), eps_of("element")
    region = NORMS[norm](eps, clip=clip).region(x)
    rows = torch.randn(2, B, *SHAPE, dtype=x.dtype)
    low, high = region.linear_range(rows)
    for r in range(2):
        for b in range(B):
            flat = x[b].flatten(), eps[b].flatten()
            best = optimum(norm, *flat, clip, rows[r, b].flatten())
            worst = -optimum(norm, *flat, clip, -rows[r, b].flatten())
            assert high[r, b] >= best - 1e-9 and low[r, b] <= worst + 1e-9
            assert abs(high[r, b] - best) < 1e-7 and abs(low[r, b] - worst) < 1e-7


def test_corners_enclose_and_are_reached(case):
    _, x, eps, clip, region = case
    low, high = x - eps, x + eps
    if clip is not None:
        low, high = low.clamp(*clip), high.clamp(*clip)
    torch.testing.assert_close(region.lower, low)
    torch.testing.assert_close(region.upper, high)
    assert bool(region.contains(region.center).all()) and len(region) == B


def test_l2_extent_is_an_upper_bound(case):
    norm, x, eps, clip, region = case
    members = region.sample(per_input(0, range(B)))
    for start in (x, members):
        extent = region.l2_extent(start)
        for k in range(20):
            gap = (region.sample(per_input(k, range(B))) - start).flatten(1).norm(dim=1)
            assert bool((gap <= extent + 1e-12).all())
    if norm != "linf" and clip is None:
        torch.testing.assert_close(region.l2_extent(x), eps.flatten(1).amax(1))


def test_steepest_has_unit_size_and_grows(case):
    norm, x, eps, clip, region = case
    gradient = torch.randn_like(x)
    step = region.steepest(gradient)
    assert bool(((gradient * step).flatten(1).sum(1) > 0).all())
    size = (step / eps).flatten(1).norm(p=P[norm], dim=1)
    if clip is None or norm != "linf":
        torch.testing.assert_close(size, torch.ones_like(size))
    if clip is None:  # best among members: half of the range of the linear form
        low, high = region.linear_range(gradient.unsqueeze(0))
        torch.testing.assert_close((gradient * step).flatten(1).sum(1), (high - low)[0] / 2)
    assert not bool(region.steepest(torch.zeros_like(x)).any())


def test_select_by_position_and_by_mask(case):
    _, x, _, _, region = case
    rows = torch.randn(2, 1, *SHAPE, dtype=x.dtype)
    mask = torch.tensor([True, False, True, True, False, False])
    index = mask.nonzero().squeeze(1)
    for pick in (mask, index, index.flip(0)):
        part = region.select(pick)
        assert len(part) == 3 and torch.equal(part.center, region.center[pick])
        for a, b in zip(part.linear_range(rows), region.linear_range(rows), strict=True):
            torch.testing.assert_close(a, b[:, pick])


def test_ranges_are_differentiable_at_zero_rows():
    """Training differentiates through the range; a zero row must not give NaN."""
    for region in (L2(0.1).region(clean()), L1(0.1).region(clean()), Linf(0.1).region(clean())):
        rows = torch.zeros(1, 1, *SHAPE, dtype=torch.float64, requires_grad=True)
        low, high = region.linear_range(rows)
        (high - low).sum().backward()
        assert bool(torch.isfinite(rows.grad).all())


def test_box_is_a_region_of_its_own():
    low, high = torch.tensor([[0.0, -1.0]]), torch.tensor([[1.0, 3.0]])
    box = Box(low, high)
    rows = torch.tensor([[[2.0, -1.0]]])
    assert [v.item() for v in box.linear_range(rows)] == [-3.0, 3.0]
    assert box.center.tolist() == [[0.5, 1.0]]
    assert box.project(torch.tensor([[5.0, -5.0]])).tolist() == [[1.0, -1.0]]
    assert box.contains(torch.tensor([[1.0, 3.0]])).item()
    assert not box.contains(torch.tensor([[1.0, 3.000001]])).item()
    assert box.l2_extent(torch.tensor([[0.0, -1.0]])).item() == pytest.approx(17**0.5)


def test_a_ball_is_known_by_hand():
    x = torch.zeros(1, 2, dtype=torch.float64)
    ball = Ball(x, torch.tensor([[2.0, 1.0]], dtype=torch.float64), 2)
    assert ball.contains(torch.tensor([[1.2, 0.79]])).item()
    assert not ball.contains(torch.tensor([[1.2, 0.81]])).item()
    diamond = Ball(x, torch.ones_like(x), 1)
    torch.testing.assert_close(
        diamond.project(torch.tensor([[1.5, 1.0]], dtype=torch.float64)),
        torch.tensor([[0.75, 0.25]], dtype=torch.float64),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_extent_of_a_large_input_is_not_lost_to_rounding(dtype):
    """Squares added up in float32 lose 4e-5 of this distance, and smoothing would certify too much."""
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(dtype)
    for threat in (Linf(0.3, clip=None), Linf(0.3), L0(150_000), Patch(224)):
        region = threat.region(x)
        far = torch.maximum(region.upper.double() - x.double(), x.double() - region.lower.double())
        reach = far.flatten(1).square()
        if isinstance(threat, L0):
            reach = reach.topk(150_000).values
        assert float(region.l2_extent(x)) >= float(reach.sum().sqrt()) * (1 - 1e-12)
