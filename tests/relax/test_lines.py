"""Every relaxation dominates its operation: on dense grids, end points included, and by sampling."""

import pytest
import torch

from certus.graph.activation import Clamp, LeakyRelu, MaxPool, Relu, Sigmoid, Tanh
from certus.graph.op import Elementwise
from certus.relax import relaxations

ACTIVATIONS = {
    "relu": Relu(),
    "leaky": LeakyRelu(0.2),
    "leaky-0": LeakyRelu(0.0),
    "leaky-1": LeakyRelu(1.0),
    "hardtanh": Clamp(-1.0, 1.0),
    "relu6": Clamp(0.0, 6.0),
    "clamp-off-zero": Clamp(0.5, 3.0),
    "clamp-below": Clamp(-4.0, -0.25),
    "sigmoid": Sigmoid(),
    "tanh": Tanh(),
}
GRID = 401


def intervals(dtype):
    """Lower and upper ends: every scale, one-sided, straddling, without width, touching zero."""
    g = torch.Generator().manual_seed(3)
    low, high = [], []
    for scale in (1e-9, 1e-6, 1e-3, 0.1, 1.0, 5.0, 30.0, 1e3):
        ends = scale * torch.randn(2, 120, generator=g, dtype=torch.float64)
        low.append(ends.amin(0)), high.append(ends.amax(0))
        for centre in (-3.0, -1.0, 0.0, 0.5, 1.0, 6.0):
            ends = centre + scale * torch.rand(2, 25, generator=g, dtype=torch.float64)
            low.append(ends.amin(0)), high.append(ends.amax(0))
    special = [-1e3, -20.0, -6.0, -1.0, -0.25, -1e-12, 0.0, 1e-12, 0.5, 1.0, 3.0, 6.0, 20.0, 1e3]
    pairs = [(a, b) for a in special for b in special if a <= b]
    low.append(torch.tensor([a for a, _ in pairs], dtype=torch.float64))
    high.append(torch.tensor([b for _, b in pairs], dtype=torch.float64))
    return torch.cat(low).to(dtype), torch.cat(high).to(dtype)


def lines(relaxation, x):
    """The lower and the upper line at x, by pulling back +1 and -1."""
    one = torch.ones_like(relaxation.upper_slope)[None]
    (slope,), offset = relaxation.pull(one)
    (negative,), minus = relaxation.pull(-one)
    del offset, minus  # sums over elements; the elementwise offsets are fields
    low = 0.0 if relaxation.lower_offset is None else relaxation.lower_offset
    return slope[0] * x + low, -negative[0] * x + relaxation.upper_offset


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 3e-6)])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_lines_dominate_on_a_grid(name, dtype, tolerance):
    op = ACTIVATIONS[name]
    lower, upper = intervals(dtype)
    relaxation = relaxations[type(op)](op, (lower, upper))
    shares = torch.linspace(0, 1, GRID, dtype=dtype)
    size = torch.maximum(lower.abs(), upper.abs()).clamp(min=1.0)
    for share in shares:
        x = lower + share * (upper - lower)
        x = torch.minimum(torch.maximum(x, lower), upper)
        below, above = lines(relaxation, x)
        value = op.forward(x)
        assert bool((below <= value + tolerance * size).all())
        assert bool((above >= value - tolerance * size).all())
    for x in (lower, upper):
        below, above = lines(relaxation, x)
        assert bool((below <= op.forward(x) + tolerance * size).all())
        assert bool((above >= op.forward(x) - tolerance * size).all())


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_lines_are_tight_where_the_function_is_a_line(name):
    """On an interval without width both lines meet the function, so eps = 0 is exact."""
    op = ACTIVATIONS[name]
    x = torch.cat([torch.linspace(-8, 8, 321), torch.tensor([0.0, 1e3, -1e3])]).double()
    below, above = lines(relaxations[type(op)](op, (x, x)), x)
    assert torch.allclose(below, op.forward(x), atol=1e-9)
    assert torch.allclose(above, op.forward(x), atol=1e-9)


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "hardtanh", "leaky"])
def test_the_lines_are_not_vacuous(name):
    """The gap between the lines shrinks with the interval, quadratically where f is smooth."""
    op = ACTIVATIONS[name]
    centre = torch.linspace(-4, 4, 81).double()
    gaps = []
    for half in (0.4, 0.04):
        relaxation = relaxations[type(op)](op, (centre - half, centre + half))
        below, above = lines(relaxation, centre)
        gaps.append(float((above - below).max()))
    assert gaps[0] <= 0.5 and gaps[1] <= gaps[0] / 5


def test_relu_by_hand():
    """[-1, 3]: chord 3/4 x + 3/4, lower slope 1; [-3, 1]: lower slope 0."""
    low, high = torch.tensor([-1.0, -3.0, -2.0, 1.0]), torch.tensor([3.0, 1.0, -1.0, 2.0])
    found = relaxations[Relu](Relu(), (low, high))
    assert found.upper_slope.tolist() == [0.75, 0.25, 0.0, 1.0]
    assert found.upper_offset.tolist() == [0.75, 0.75, 0.0, 0.0]
    assert found.lower_slope.tolist() == [1.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_promises_of_the_class(name):
    """Non-decreasing, with slopes no larger than `lipschitz`; S-shaped ones know their derivative."""
    op = ACTIVATIONS[name]
    assert isinstance(op, Elementwise)
    x = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    y = op.forward(x)
    slopes = y.diff() / x.diff()
    assert bool((slopes >= -1e-12).all()) and float(slopes.max()) <= op.lipschitz + 1e-9
    assert float(slopes.max()) >= 0.99 * op.lipschitz
    if name in ("sigmoid", "tanh"):
        x = torch.linspace(-6, 6, 200, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(op.forward(x).sum(), x)
        assert torch.allclose(slope, op.derivative(x.detach()), atol=1e-12)
        second = op.derivative(x.detach()).diff()
        middle = (x.detach()[1:] + x.detach()[:-1]) / 2
        assert bool((second[middle < -0.1] > 0).all() and (second[middle > 0.1] < 0).all())


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinite_intervals_never_give_a_usable_bound(name, bad):
    """NaN poisons both lines; an infinite end may only widen."""
    op = ACTIVATIONS[name]
    low, high = torch.tensor([[-1.0, -1.0]]).double(), torch.tensor([[2.0, bad]]).double()
    relaxation = relaxations[type(op)](op, (low, high))
    for rows in (torch.ones(1, 1, 2).double(), -torch.ones(1, 1, 2).double()):
        (slopes,), offset = relaxation.pull(rows)
        x = torch.tensor([0.5, 1e6 if bad == float("inf") else 0.5]).double()
        bound = (slopes[0, 0] * x).sum() + offset[0, 0]
        value = (rows[0, 0] * op.forward(x)).sum()
        finite = bool(torch.isfinite(slopes).all() & torch.isfinite(offset).all())
        assert not finite or (bad == float("inf") and float(bound) <= float(value) + 1e-9)


POOLS = {
    "plain": (MaxPool((2, 2), (2, 2), (0, 0)), (4, 6)),
    "overlap": (MaxPool((3, 3), (2, 2), (1, 1)), (5, 6)),
    "remainder": (MaxPool((2, 2), (2, 2), (0, 0)), (5, 7)),
    "ceil": (MaxPool((2, 3), (2, 2), (0, 1), (1, 1), True), (5, 6)),
    "ceil-pad": (MaxPool((3, 3), (2, 2), (1, 1), (1, 1), True), (6, 5)),
    "dilated": (MaxPool((2, 2), (1, 2), (1, 0), (2, 3)), (5, 6)),
    "gaps": (MaxPool((1, 2), (3, 3), (0, 0)), (7, 8)),
}


@pytest.mark.parametrize("name", POOLS)
def test_windows_hold_what_pooling_sees(name):
    op, size = POOLS[name]
    x = torch.randn(2, 3, *size).double()
    expected = op.forward(x)
    found = op.windows(x, float("-inf")).amax(2).view(expected.shape)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", POOLS)
def test_scatter_is_the_adjoint_of_windows(name):
    op, size = POOLS[name]
    x = torch.randn(2, 3, *size).double()
    columns = op.windows(x, 0.0)
    y = torch.randn_like(columns)
    assert float((columns * y).sum()) == pytest.approx(float((x * op.scatter(y, size)).sum()))


@pytest.mark.parametrize("scale", [0.0, 1e-3, 0.5, 3.0])
@pytest.mark.parametrize("name", POOLS)
def test_the_planes_of_pooling_dominate(name, scale):
    op, size = POOLS[name]
    lower = torch.randn(2, 3, *size).double()
    upper = lower + scale * torch.rand(2, 3, *size).double()
    relaxation = relaxations[MaxPool](op, (lower, upper))
    rows = torch.randn(4, 2, *op.forward(lower).shape[1:]).double()
    (slopes,), offset = relaxation.pull(rows)
    (shared,), base = relaxation.pull(rows[:, :1])
    assert slopes.shape == (4, 2, 3, *size) and shared.shape == slopes.shape
    assert torch.allclose(shared[:, 0], slopes[:, 0]) and torch.allclose(base[:, 0], offset[:, 0])
    for k in range(80):
        u = torch.rand(2, 3, *size).double()
        u = u.round() if k % 2 else u
        x = lower + u * (upper - lower)
        value = torch.einsum("rbchw,bchw->rb", rows, op.forward(x))
        bound = torch.einsum("rbchw,bchw->rb", slopes, x) + offset
        assert bool((bound <= value + 1e-9).all())
        if scale == 0.0:
            assert torch.allclose(bound, value)


@pytest.mark.parametrize("name", ["relu", "leaky", "leaky-0", "leaky-1"])
def test_every_slope_that_is_offered_gives_a_lower_line(name):
    op, (lower, upper) = ACTIVATIONS[name], intervals(torch.float64)
    relaxation = relaxations[type(op)](op, (lower, upper))
    assert relaxation.lower_offset is None
    for slope in (relaxation.floor, relaxation.ceiling):
        for share in torch.linspace(0, 1, 21, dtype=torch.float64):
            x = lower + share * (upper - lower)
            assert bool((slope * x <= op.forward(x) + 1e-12 * x.abs()).all())
