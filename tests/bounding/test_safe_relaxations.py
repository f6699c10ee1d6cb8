"""Safe lines, planes and ranges against rational arithmetic."""

from fractions import Fraction

import mpmath
import pytest
import torch
from tests.bounding.exact import exact_values, fractions, function
from tests.bounding.single import ACTIVATIONS, DTYPES, F32, alone

from certus.bounding.engine import Engine
from certus.bounding.outer_range import ranges
from certus.bounding.safe_relaxations import safe_relaxations
from certus.graph.activation import MaxPool, Sigmoid, Tanh
from certus.relax import relaxations
from certus.threats import L0, L1, L2, Linf


def endpoints(dtype):
    """Intervals of all sizes: narrow and wide, on either side of zero and across it."""
    low = torch.empty(400, dtype=dtype).uniform_(-6, 6)
    width = 10 ** torch.empty(400, dtype=dtype).uniform_(-7, 1.5)
    low[:40] *= 20
    high = low + width
    low[40:60], high[40:60] = 0.0, width[40:60]
    low[60:80], high[60:80] = -width[60:80], 0.0
    high[80:100] = low[80:100]
    return low.unsqueeze(0), high.unsqueeze(0)


def misses(op, lines, interval):
    """How often a line is on the wrong side of the exact function at ends, kinks and inner points."""
    f, bad = function(op), 0
    sides = [lines.lower_slope, lines.upper_slope, lines.upper_offset]
    low_offset = lines.lower_offset
    sides.append(torch.zeros_like(sides[0]) if low_offset is None else low_offset)
    below, above, top, bottom = map(fractions, sides)
    ends = list(zip(*map(fractions, interval), strict=True))
    for i, (low, high) in enumerate(ends):
        kinks = [Fraction(k) for k in (0.0, -0.3, 0.7, 6.0) if low < k < high]
        for x in [low, high, *kinks, *[low + (high - low) * k / 9 for k in range(1, 9)]]:
            value = f(x)
            bad += below[i] * x + bottom[i] > value
            bad += above[i] * x + top[i] < value
    return bad


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_safe_relaxations_hold_exactly(name, dtype):
    op, interval = ACTIVATIONS[name], endpoints(dtype)
    plain = relaxations[type(op)](op, interval)
    safe = safe_relaxations[type(op)](op, plain, interval, Engine("torch", interval[0].dtype))
    assert misses(op, safe, interval) == 0
    scale = 1 + torch.maximum(interval[0].abs(), interval[1].abs())
    loose = (safe.upper_offset - plain.upper_offset) / scale
    assert bool((loose.abs() < 200 * torch.finfo(dtype).eps).all())


@pytest.mark.parametrize("name", ["relu", "clamp", "sigmoid", "tanh"])
def test_ordinary_lines_miss_the_function(name):
    op, interval = ACTIVATIONS[name], endpoints(F32)
    assert misses(op, relaxations[type(op)](op, interval), interval) > 0


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_safe_relaxations_hold_for_the_float_function_densely(name):
    """The tangent's side: many points, the function as torch evaluates it in float32."""
    op, interval = ACTIVATIONS[name], endpoints(F32)
    safe = safe_relaxations[type(op)](
        op, relaxations[type(op)](op, interval), interval, Engine("torch", interval[0].dtype)
    )
    share = torch.linspace(0, 1, 2001).view(-1, 1)
    x = torch.minimum(interval[0] + share * (interval[1] - interval[0]), interval[1])
    value, x = op.forward(x).double(), x.double()
    assert bool((safe.lower_slope.double() * x + safe.lower_offset.double() <= value).all())
    assert bool((safe.upper_slope.double() * x + safe.upper_offset.double() >= value).all())


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_any_slope_becomes_safe(name):
    """Offsets do not rely on the slopes that the table chose."""
    from dataclasses import replace

    op, interval = ACTIVATIONS[name], endpoints(F32)
    plain = relaxations[type(op)](op, interval)
    shaken = replace(plain, upper_slope=plain.upper_slope + 0.2 * torch.randn_like(interval[0]))
    if name not in ("relu", "leaky", "leaky-zero"):
        shaken = replace(
            shaken, lower_slope=plain.lower_slope + 0.2 * torch.randn_like(interval[0])
        )
    assert (
        misses(
            op,
            safe_relaxations[type(op)](op, shaken, interval, Engine("torch", interval[0].dtype)),
            interval,
        )
        == 0
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (2, 2, 0), (2, 1, 1)])
def test_a_safe_max_pool_holds_exactly(kernel, stride, padding, dtype):
    op = MaxPool((kernel,) * 2, (stride,) * 2, (padding,) * 2)
    graph = alone(op, [(2, 5, 5)], dtype)
    low = 0.5 * torch.randn(1, 2, 5, 5, dtype=dtype)
    interval = low, low + torch.rand_like(low) ** 3
    plain = relaxations[MaxPool](op, interval)
    safe = safe_relaxations[MaxPool](op, plain, interval, Engine("torch", interval[0].dtype))
    assert torch.allclose(safe.offset, plain.offset, rtol=0, atol=200 * torch.finfo(dtype).eps)
    for k in range(20):
        share = torch.rand_like(low) if k % 4 == 0 else torch.rand_like(low).round()
        x = torch.minimum(low + share * (interval[1] - low), interval[1])
        real = exact_values(graph, x[0])[graph.output]
        taps = op.windows(x, 0.0)[0]
        inside = op.windows(torch.ones_like(x), 0.0)[0]
        inputs = fractions(taps * inside).reshape(taps.shape)
        for coefs, sign in ((safe.lower, 1), (safe.upper, -1)):
            line = (fractions(coefs[0].flatten(2)).reshape(taps.shape) * inputs).sum(1).reshape(-1)
            offset = fractions(safe.offset[0]) if sign < 0 else 0
            assert ((real - line - offset) * sign >= 0).all()


def exact_range(region, row, kind, eps):
    """An upper bound of the exact minimum of <row, x>: its value at the best float point known."""
    c, x = row.double().flatten(), region.center.double().flatten()
    with mpmath.workdps(50):
        terms_ = [
            mpmath.mpf(a) * mpmath.mpf(b) for a, b in zip(c.tolist(), x.tolist(), strict=True)
        ]
        middle, size = mpmath.fsum(terms_), [abs(mpmath.mpf(v)) for v in c.tolist()]
        if kind == "l2":
            return middle - eps * mpmath.sqrt(mpmath.fsum([s * s for s in size]))
        if kind == "l1":
            return middle - eps * max(size)
        return middle - eps * mpmath.fsum(size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["linf", "l2", "l1"])
def test_ranges_lie_below_the_exact_minimum(kind, dtype):
    threat = {"linf": Linf, "l2": L2, "l1": L1}[kind]
    broken = 0
    for eps in (0.0, 2.0**-7, 0.5):
        x, rows = torch.rand(1, 300, dtype=dtype), torch.randn(30, 1, 300, dtype=dtype)
        region = threat(eps, clip=None).region(x)
        found, error = ranges[type(region)](region, rows, 4)
        ordinary = region.linear_range(rows)[0]
        for r in range(len(rows)):
            exact = exact_range(region, rows[r], kind, mpmath.mpf(eps))
            assert (
                mpmath.mpf(float(found[r])) - mpmath.mpf(float(error.expand_as(found)[r])) <= exact
            )
            broken += mpmath.mpf(float(ordinary[r])) > exact
    assert broken > 5


@pytest.mark.parametrize("threat", [L2(0.9), L1(2.0), L0(3), Linf(0.2)], ids=str)
def test_clipped_ranges_lie_below_members(threat):
    x = torch.rand(2, 40)
    region, rows = threat.region(x), torch.randn(9, 2, 40)
    found, error = ranges[type(region)](region, rows, 4)
    exact = threat.region(x.double()).linear_range(rows.double())[0]
    assert bool((found.double() - error.double() <= exact + 1e-12).all())
    assert bool(((exact - found).abs() < 1e-4 * (1 + exact.abs())).all())


@pytest.mark.parametrize("op", [Sigmoid(), Tanh()])
def test_lines_leave_room_for_the_evaluation_of_an_engine(op):
    """onnxruntime's sigmoid is off by more than an eps however small its value is."""
    interval = torch.full((1, 1), -18.0), torch.full((1, 1), -17.9)
    engine = Engine("onnxruntime", torch.float32)
    lines = safe_relaxations[type(op)](op, relaxations[type(op)](op, interval), interval, engine)
    relative, absolute = engine.function(op)
    for x in (-18.0, -17.95, -17.9):
        value = float(op.forward(torch.tensor(x).double()))
        error = 0.9 * (relative * abs(value) + absolute)
        assert float(lines.upper_slope) * x + float(lines.upper_offset) >= value + error
        assert float(lines.lower_slope) * x + float(lines.lower_offset) <= value - error
