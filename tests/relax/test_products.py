"""Products, softmax, largest values and norms: planes dominate, intervals contain and are attained."""

import itertools

import pytest
import torch

from certus.bounding.engine import Engine
from certus.bounding.evaluation import evaluation
from certus.bounding.rounding import passed
from certus.core import ArgumentError
from certus.graph.activation import MaxPool, Within
from certus.graph.bilinear import Mul, Product
from certus.graph.extremum import ArgMax, Maximum, Norm, ReduceMax
from certus.graph.softmax import LogSumExp, MaskedSoftmax, Softmax
from certus.relax import intervals, relaxations

INF = float("inf")
# operation, shapes of its inputs; at most 12 numbers, so that all corners can be tried
OPS = {
    "mul": (Mul(), [(4,), (4,)]),
    "mul-spread": (Mul(), [(3, 1), (1, 4)]),
    "product": (Product(), [(2, 3), (3, 2)]),
    "product-transposed": (Product(True), [(2, 3), (2, 3)]),
    "product-heads": (Product(), [(2, 1, 2), (1, 2, 2)]),
    "product-heads-second": (Product(True), [(1, 2, 2), (2, 2, 2)]),
    "softmax": (Softmax(1), [(5,)]),
    "softmax-one": (Softmax(1), [(1,)]),
    "softmax-inner": (Softmax(2), [(2, 3, 2)]),
    "softmax-masked": (
        MaskedSoftmax(2, torch.tensor([[[True, False, True], [False, True, True]]])),
        [(2, 3)],
    ),
    "logsumexp": (LogSumExp(1), [(5,)]),
    "logsumexp-inner": (LogSumExp(2, True), [(2, 3, 2)]),
    "maximum": (Maximum(), [(5,), (5,)]),
    "maximum-spread": (Maximum(), [(3, 1), (1, 4)]),
    "reduce-max": (ReduceMax((1, 3)), [(2, 3, 2)]),
    "reduce-max-all": (ReduceMax((1, 2), True), [(3, 4)]),
    "norm-1": (Norm(1.0, (1,)), [(4, 2)]),
    "norm-2": (Norm(2.0, (1, 2), True), [(4, 2)]),
    "norm-inf": (Norm(INF, (2,)), [(2, 4)]),
    "arg-max": (ArgMax(1), [(4, 2)]),
    "arg-max-kept": (ArgMax(2, True), [(2, 4)]),
    "pool-1d": (MaxPool((3,), (2,), (1,)), [(2, 6)]),
    "pool-3d": (MaxPool((2, 1, 2), (1, 1, 2), (1, 0, 0)), [(1, 2, 2, 3)]),
}
SCALES = [0.0, 1e-6, 0.1, 1.0, 8.0]
SMOOTH = {"arg-max", "arg-max-kept"}  # these jump, so a box without width may have a range


def boxes(shapes, scale, batch=3):
    """Boxes around zero, above it and below it."""
    g = torch.Generator().manual_seed(len(shapes) + int(100 * scale))
    found = []
    for shape in shapes:
        centre = torch.randn(batch, *shape, generator=g, dtype=torch.float64)
        centre = centre + torch.tensor([0.0, 2.0, -2.0]).double().view(-1, *[1] * len(shape))
        half = scale * torch.rand(batch, *shape, generator=g, dtype=torch.float64)
        found.append((centre - half, centre + half))
    return found


def blend(box, share):
    low, high = box
    return torch.where(share == 1, high, low + share * (high - low))


def points(box, levels=(0.0, 1.0), most=1024):
    """Every combination of levels between the ends, then random points."""
    sizes = [low[0].numel() for low, _ in box]
    g = torch.Generator().manual_seed(5)
    total = sum(sizes)
    if len(levels) ** total <= most:
        shares = torch.tensor(list(itertools.product(levels, repeat=total))).double()
    else:
        shares = torch.randint(0, len(levels), (most, total), generator=g)
        shares = torch.tensor(levels).double()[shares]
    ends = torch.tensor([[0.0], [1.0]]).double().expand(2, total)
    shares = torch.cat([ends, shares, torch.rand(50, total, generator=g, dtype=torch.float64)])
    for share in shares:
        parts = share.split(sizes)
        yield [
            blend(b, s.view(1, *b[0].shape[1:]).expand_as(b[0]))
            for b, s in zip(box, parts, strict=True)
        ]


def linear(rows, values):
    products = rows * values
    return products.reshape(*products.shape[:2], -1).sum(2)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", OPS)
def test_planes_dominate(name, scale):
    op, shapes = OPS[name]
    box = boxes(shapes, scale)
    out = op.forward(*[low for low, _ in box])
    relaxation = relaxations[type(op)](op, *box)
    g = torch.Generator().manual_seed(1)
    rows = torch.randn(6, *out.shape, generator=g, dtype=torch.float64)
    pulled, offset = relaxation.pull(rows)
    assert [tuple(p.shape) for p in pulled] == [(6, 3, *s) for s in shapes]
    assert offset.shape == (6, 3)
    tolerance = 1e-9 * (1 + sum(float(p.abs().sum()) for p in pulled))
    for x in points(box, most=60):
        value = linear(rows, op.forward(*x))
        bound = offset + sum(linear(p, v) for p, v in zip(pulled, x, strict=True))
        assert bool((bound <= value + tolerance).all())
        if scale == 0 and name not in SMOOTH:
            assert torch.allclose(bound, value, atol=1e-9)


@pytest.mark.parametrize("name", OPS)
def test_rows_that_inputs_share_and_selected_inputs(name):
    op, shapes = OPS[name]
    box = boxes(shapes, 1.0)
    relaxation = relaxations[type(op)](op, *box)
    rows = torch.randn(4, 1, *op.forward(*[low for low, _ in box]).shape[1:]).double()
    shared, base = relaxation.pull(rows)
    full, offset = relaxation.pull(rows.expand(-1, 3, *rows.shape[2:]))
    last, end = relaxation.select(slice(2, 3)).pull(rows)
    for a, b, c in zip(shared, full, last, strict=True):
        assert torch.allclose(a, b) and torch.allclose(c, b[:, 2:])
    assert torch.allclose(base, offset) and torch.allclose(end, offset[:, 2:])


@pytest.mark.parametrize("scale", [0.0, 0.5, 8.0])
@pytest.mark.parametrize("name", OPS)
def test_intervals_contain_and_are_attained(name, scale):
    """Extremes lie at corners, for norms at corners or where a coordinate is zero."""
    op, shapes = OPS[name]
    box = boxes(shapes, scale)
    lower, upper = intervals[type(op)](op, *box)
    least, most = torch.full_like(lower, INF), torch.full_like(upper, -INF)
    for x in points(box):
        value = op.forward(*x)
        least, most = torch.minimum(least, value), torch.maximum(most, value)
    if name.startswith("norm"):
        ((low, high),) = box
        near = low.clamp(min=0) + high.clamp(max=0)
        least = torch.minimum(least, op.forward(near))
    size = 1e-9 * (1 + torch.maximum(lower.abs(), upper.abs()))
    assert bool((lower <= least + size).all() and (upper >= most - size).all())
    assert bool((lower >= least - size).all() and (upper <= most + size).all())


@pytest.mark.parametrize("name", OPS)
def test_nan_comes_through(name):
    op, shapes = OPS[name]
    box = boxes(shapes, 1.0)
    for low, high in box:
        low[:, ..., 0], high[:, ..., 0] = float("nan"), float("nan")
    found = intervals[type(op)](op, *box)
    assert all(bool(bound.isnan().any()) for bound in found)
    relaxation = relaxations[type(op)](op, *box)
    for sign in (1.0, -1.0):
        rows = torch.full((1, 3, *found[0].shape[1:]), sign, dtype=torch.float64)
        pulled, offset = relaxation.pull(rows)
        # a plane that reads the element itself meets the NaN there
        reads = sum(p[0].flatten(1).ne(0).any(1) for p in pulled)
        assert bool((offset[0].isnan() | (reads > 0)).all())


@pytest.mark.parametrize("name", OPS)
def test_float32_stays_within_the_rounding_rule(name):
    """The rule bounds what float32 makes of inputs that are off by an error."""
    op, shapes = OPS[name]
    box = boxes(shapes, 0.5)
    errors = [torch.full_like(low, 1e-5) for low, _ in box]
    allowed = passed[type(op)](op, errors, box)
    out = op.forward(*[low for low, _ in box]).shape
    own = evaluation[type(op)](op, box, shapes, out[1:], Engine("torch", torch.float32))
    allowed = allowed if own is None else allowed + own
    assert allowed.shape == out
    g = torch.Generator().manual_seed(2)
    for x in itertools.islice(points(box, most=60), 100):
        signs = [torch.randint(0, 2, v.shape, generator=g).double() * 2 - 1 for v in x]
        noisy = [(v + 0.9e-5 * s).float() for v, s in zip(x, signs, strict=True)]
        gap = (op.forward(*noisy).double() - op.forward(*x)).abs()
        assert bool((gap <= allowed).all())


def test_softmax_of_far_apart_values():
    """No overflow and no NaN where exponentials under- or overflow; masked positions weigh nothing."""
    low = torch.tensor([[-200.0, -(2.0**30), -150.0, 90.0]])
    high = torch.tensor([[200.0, -(2.0**30), -140.0, 95.0]])
    op = Softmax(1)
    lower, upper = intervals[Softmax](op, (low, high))
    assert lower.tolist() == [[0.0, 0.0, 0.0, 0.0]] and upper[0, 0] == 1 and upper[0, 1] == 0
    relaxation = relaxations[Softmax](op, (low, high))
    rows = torch.eye(4).unsqueeze(1)
    for sign in (1, -1):
        (pulled,), offset = relaxation.pull(sign * rows)
        assert bool(torch.isfinite(pulled).all() and torch.isfinite(offset).all())
        assert bool((pulled[:, :, 1] == 0).all())


@pytest.mark.parametrize("name", ["softmax", "logsumexp", "mul", "product", "norm-2"])
def test_planes_are_tangent(name):
    """The gap at the centre falls with the square of the width."""
    op, shapes = OPS[name]
    centres = [(low + high) / 2 for low, high in boxes(shapes, 0.1)]
    gaps = []
    for half in (0.1, 0.01):
        box = [(c - half, c + half) for c in centres]
        relaxation = relaxations[type(op)](op, *box)
        rows = torch.eye(op.forward(*centres)[0].numel()).double()
        rows = rows.view(len(rows), 1, *op.forward(*centres).shape[1:])
        total = 0.0
        for sign in (1, -1):
            pulled, offset = relaxation.pull(sign * rows)
            bound = offset + sum(linear(p, c) for p, c in zip(pulled, centres, strict=True))
            total = total + linear(sign * rows, op.forward(*centres)) - bound
        gaps.append(float(total.max()))
    assert 0 < gaps[1] <= gaps[0] / 50


def test_products_by_hand():
    """x in [1, 3], y in [-1, 3]: y keeps the coefficient 1, and x takes y's end."""
    one = torch.ones(1, 1, 1)
    box = (one[0], 3 * one[0]), (-one[0], 3 * one[0])
    for sign, expected in ((1.0, ([-1.0], [1.0], 1.0)), (-1.0, ([-3.0], [-1.0], 3.0))):
        (x, y), offset = relaxations[Mul](Mul(), *box).pull(sign * one)
        assert (x[0, 0].tolist(), y[0, 0].tolist(), offset.item()) == expected


def test_the_largest_of_two_by_hand():
    """max(x, y) on [-1, 1]^2 lies below (x + y) / 2 + 1, the plane of x + relu(y - x)."""
    low = -torch.ones(1, 2)
    (pulled,), offset = relaxations[ReduceMax](ReduceMax((1,)), (low, -low)).pull(-torch.ones(1, 1))
    assert pulled.tolist() == [[[-0.5, -0.5]]] and offset.tolist() == [[-1.0]]


def test_a_limit_known_beforehand():
    """Identity while the interval is near the limits, and intervals are cut; never loose on members."""
    op = Within(-2.0, 2.0)
    low, high = (
        torch.tensor([[-1.0, -2.5, -50.0]]).double(),
        torch.tensor([[1.0, 2.5, 3.0]]).double(),
    )
    assert intervals[Within](op, (low, high))[0].tolist() == [[-1.0, -2.0, -2.0]]
    relaxation = relaxations[Within](op, (low, high))
    for share in torch.linspace(0, 1, 101).double():
        x = (low + share * (high - low)).clamp(-2, 2)
        above = relaxation.upper_slope * x + relaxation.upper_offset
        below = relaxation.lower_slope * x + relaxation.lower_offset
        assert bool((below <= x + 1e-12).all() and (above >= x - 1e-12).all())
    assert relaxation.upper_slope[0, :2].tolist() == [1.0, 1.0]
    assert float(relaxation.lower_slope[0, 2]) == 0


def test_shapes_that_would_move_the_batch_are_refused():
    for op in (Mul(), Maximum(), Product()):
        with pytest.raises(ArgumentError, match="number of dimensions"):
            op.forward(torch.ones(2, 3, 3), torch.ones(2, 3))
    with pytest.raises(ArgumentError, match="p in 1, 2"):
        Norm(3.0, (1,))
