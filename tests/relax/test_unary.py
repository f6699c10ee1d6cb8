"""Lines of every smooth, periodic and stepped operation: they dominate, and no line does much better."""

import math

import pytest
import torch
import torch.nn.functional as F
from tests.laws.tolerance import evaluation_error, line_error, perturbed

from certus.graph import inverse, smooth
from certus.graph.activation import Sigmoid, Tanh
from certus.graph.piecewise import Jumps
from certus.relax import relaxations

WHOLE, POSITIVE, NONZERO, UNIT = "whole", "positive", "nonzero", "branch"
ABOVE, INSIDE = "above one", "inside one"
CASES = {
    "sigmoid": (Sigmoid(), WHOLE),
    "tanh": (Tanh(), WHOLE),
    "elu": (smooth.Elu(), WHOLE),
    "elu-flat": (smooth.Elu(0.0, 2.0), WHOLE),
    "elu-small": (smooth.Elu(0.3), WHOLE),
    "selu": (smooth.Elu(1.6732632423543772, 1.0507009873554805), WHOLE),
    "elu-steep": (smooth.Elu(4.0), WHOLE),
    "celu": (smooth.Celu(0.7), WHOLE),
    "softplus": (smooth.Softplus(), WHOLE),
    "softplus-exact": (smooth.Softplus(2.0, math.inf), WHOLE),
    "softplus-early": (smooth.Softplus(1.5, 2.0), WHOLE),
    "gelu": (smooth.Gelu(), WHOLE),
    "gelu-tanh": (smooth.Gelu(tanh=True), WHOLE),
    "silu": (smooth.Silu(), WHOLE),
    "hardswish": (smooth.HardSwish(), WHOLE),
    "mish": (smooth.Mish(), WHOLE),
    "softsign": (smooth.Softsign(), WHOLE),
    "logsigmoid": (smooth.LogSigmoid(), WHOLE),
    "erf": (smooth.Erf(), WHOLE),
    "atan": (smooth.Atan(), WHOLE),
    "asinh": (inverse.Asinh(), WHOLE),
    "acosh": (inverse.Acosh(), ABOVE),
    "atanh": (inverse.Atanh(), INSIDE),
    "asin": (inverse.Asin(), INSIDE),
    "exp": (smooth.Exp(), WHOLE),
    "log": (smooth.Log(), POSITIVE),
    "sqrt": (smooth.Sqrt(), POSITIVE),
    "reciprocal": (smooth.Reciprocal(), NONZERO),
    "square": (smooth.Power(2.0), WHOLE),
    "cube": (smooth.Power(3.0), WHOLE),
    "fourth": (smooth.Power(4), WHOLE),
    "constant": (smooth.Power(0.0), WHOLE),
    "identity": (smooth.Power(1.0), WHOLE),
    "inverse-square": (smooth.Power(-2.0), NONZERO),
    "inverse-cube": (smooth.Power(-3.0), NONZERO),
    "power-1.5": (smooth.Power(1.5), POSITIVE),
    "power-0.3": (smooth.Power(0.3), POSITIVE),
    "rsqrt": (smooth.Power(-0.5), POSITIVE),
    "sin": (smooth.Sin(), WHOLE),
    "cos": (smooth.Cos(), WHOLE),
    "tan": (smooth.Tan(), UNIT),
    "abs": (smooth.Abs(), WHOLE),
    "sign": (smooth.Sign(), WHOLE),
    "floor": (smooth.Floor(), WHOLE),
    "ceil": (smooth.Ceil(), WHOLE),
    "round": (smooth.Round(), WHOLE),
    "step": (smooth.Step(), WHOLE),
    "step-inclusive": (smooth.Step(inclusive=True), WHOLE),
    "prelu-0.2": (smooth.Prelu(torch.tensor(0.2)), WHOLE),
    "prelu-neg": (smooth.Prelu(torch.tensor(-0.7)), WHOLE),
    "prelu-steep": (smooth.Prelu(torch.tensor(3.0)), WHOLE),
}
JUMPS = ("sign", "floor", "ceil", "round", "step", "step-inclusive")
GRID = 201
CENTRES = (-30.0, -6.0, -3.0, -2.4, -1.5, -1.0, -0.1, 0.0, 0.3, 1.0, 1.5, 2.4, 3.0, 9.0, 25.0)


def intervals(domain, dtype, largest=1e4):
    """[N, 1] ends: widths 1e-8 to 1e4 about many centres, ends on bends, kinks and jumps, no width."""
    g = torch.Generator().manual_seed(5)
    low, high = [], []
    for centre in CENTRES:
        for width in (0.0, 1e-8, 1e-5, 1e-2, 0.3, 1.0, 3.0, 10.0, 50.0, 1e3, 1e4):
            share = torch.rand(6, generator=g, dtype=torch.float64)
            share[:2] = torch.tensor([0.0, 1.0])
            low.append(centre - share * width), high.append(centre + (1 - share) * width)
    marks = [-20.0, -6.0, -math.pi, -3.0, -2.3993572805154677, -math.sqrt(2), -1.5, -1.0, -0.5]
    marks += [-1e-8, 0.0, 1e-8, 0.5, 1.0, math.sqrt(2), math.pi / 2, 2.0, 2.5, 3.0, 6.0, 20.0, 40.0]
    pairs = torch.tensor([(a, b) for a in marks for b in marks if a <= b], dtype=torch.float64)
    low, high = torch.cat([*low, pairs[:, 0]]), torch.cat([*high, pairs[:, 1]])
    low, high = low.clamp(-largest, largest), high.clamp(-largest, largest)
    if domain == INSIDE:
        low, high = (0.999 * x / (1 + x.abs()) for x in (low, high))
    if domain in (POSITIVE, ABOVE):
        low, high = low.abs().minimum(high.abs()) + 1e-3, low.abs().maximum(high.abs()) + 2e-3
    if domain == ABOVE:
        low, high = low + 1, high + 1
    if domain == NONZERO:
        sign = torch.where(low + high >= 0, 1.0, -1.0).double()
        small, big = low.abs().minimum(high.abs()) + 1e-2, low.abs().maximum(high.abs()) + 1e-2
        low, high = torch.where(sign > 0, small, -big), torch.where(sign > 0, big, -small)
    if domain == UNIT:
        low, high = low.clamp(-40, 40), high.clamp(-40, 40)
        branch = (low / math.pi).round() * math.pi
        low, high = (
            low.clamp(branch - 1.56, branch + 1.56),
            high.clamp(branch - 1.56, branch + 1.56),
        )
    return low.to(dtype)[:, None], high.to(dtype)[:, None]


def ends(name, dtype):
    """Intervals on which the function does not overflow."""
    return intervals(CASES[name][1], dtype, 50.0 if name == "exp" else 1e4)


def grid(lower, upper, count=GRID):
    """[N, count]: both ends and points between them, denser towards the ends."""
    even = torch.linspace(0, 1, count, dtype=lower.dtype)
    share = torch.cat([even, even**4, 1 - even**4])
    return torch.minimum(torch.maximum(lower + share * (upper - lower), lower), upper)


FORWARD = {type(op): type(op).forward for op, _ in CASES.values()}  # before anything perturbs it


def exact(op, x):
    """op(x) in float64, of these parameters, whatever `perturbed` does."""
    if isinstance(op, smooth.Softplus):
        return F.softplus(x.double(), op.beta, min(op.threshold, 200.0))
    return FORWARD[type(op)](op, x.double()).double()


def found(name, lower, upper):
    op, _ = CASES[name]
    rules = relaxations[type(op)]
    if isinstance(op, smooth.Prelu):
        op = smooth.Prelu(op.weight.to(lower.dtype))
    lines = rules(op, (lower, upper))
    shift = 0.0 if lines.lower_offset is None else lines.lower_offset
    return op, (lines.lower_slope, shift), (lines.upper_slope, lines.upper_offset)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", CASES)
def test_the_lines_dominate_on_a_grid(name, dtype):
    lower, upper = ends(name, dtype)
    op, below, above = found(name, lower, upper)
    x = grid(lower, upper)
    value = exact(op, x)
    for slope, offset, sign in ((*below, 1), (*above, -1)):
        line = slope.double() * x.double() + offset.double()
        assert bool(line.isfinite().all())
        allowed = line_error(op, x, value, slope.double())
        excess = (sign * (line - value) - allowed).amax(1)
        worst = int(excess.argmax())
        assert float(excess.max()) <= 0, (float(lower[worst]), float(upper[worst]))


@pytest.mark.parametrize("name", CASES)
def test_lines_of_the_coarsest_kernels_dominate_too(name):
    """No CPU's last digits, only the error that is allowed for: no tolerance here is a measurement."""
    with perturbed():
        test_the_lines_dominate_on_a_grid(name, torch.float32)


@pytest.mark.parametrize("name", CASES)
def test_no_kernel_is_coarser_than_what_tolerances_allow_for(name):
    """Here, in float32 against float64. If this fails on some CPU, `tolerance.py` is wrong there."""
    op, _ = CASES[name]
    x = torch.cat([end.flatten() for end in ends(name, torch.float32)])
    x = torch.cat([x, grid(*ends(name, torch.float32), 11).flatten()]).unique()
    op = smooth.Prelu(op.weight.float()) if isinstance(op, smooth.Prelu) else op
    value, error = exact(op, x), evaluation_error(op, x, exact(op, x))
    normal = value.abs() > torch.finfo(torch.float32).tiny  # below it digits are lost
    assert int(normal.sum()) > 100 or name in ("sign", "step", "step-inclusive", "floor")
    assert bool(((op.forward(x).double() - value).abs() <= error)[normal].all())


def best_height(op, lower, upper, sign):
    """The smallest height at the midpoint of any line above sign * f on a grid (below: its negative).

    For a slope k that height is max_x f(x) - k (x - m), convex in k: golden sections find the least.
    """
    marks = [-3.0, 0.0, 3.0, *[k * math.pi / 2 for k in range(-31, 32, 2)]]
    if isinstance(op, Jumps):
        marks = [k / 2 + side for k in range(-60, 61) for side in (-1e-12, 0.0, 1e-12)]
    marks = torch.tensor(marks, dtype=torch.float64).expand(len(lower), -1)
    marks = torch.minimum(torch.maximum(marks, lower), upper)
    x, middle = torch.cat([grid(lower, upper, 301), marks], 1), (lower + upper) / 2
    value = sign * op.forward(x)

    def height(slope):
        return (value - slope * (x - middle)).amax(1, keepdim=True)

    steepest = torch.maximum(*[s.abs() for s in op.slopes(lower, upper)]).clamp(max=1e9)
    low, high = -steepest, steepest
    for _ in range(70):
        a, b = low + 0.382 * (high - low), low + 0.618 * (high - low)
        better = height(a) <= height(b)
        low, high = torch.where(better, low, a), torch.where(better, b, high)
    return height((low + high) / 2)[:, 0]


@pytest.mark.parametrize("name", CASES)
def test_no_line_has_a_much_smaller_area(name):
    """The height at the midpoint (area over width) is the best one's, up to 1 % of the best gap.

    exp is let off below (its lower line has to stay positive), softplus by its jump.
    """
    lower, upper = ends(name, torch.float64)
    width = (upper - lower)[:, 0]
    near = (lower.abs() <= 20)[:, 0] & (width > 1e-2) if name in JUMPS else width > 1e-4
    keep = (near & (width < (6 if name in JUMPS else 60))).nonzero()[::4, 0]
    lower, upper = lower[keep], upper[keep]
    op, below, above = found(name, lower, upper)
    middle = (lower + upper) / 2
    top, foot = best_height(op, lower, upper, 1), -best_height(op, lower, upper, -1)
    jump = op.jump if isinstance(op, smooth.Softplus) else 0.0
    allowed = 0.01 * (top - foot) + 1e-7 * (1e-3 + top.abs() + foot.abs()) + jump
    excess = (above[0] * middle + above[1])[:, 0] - top - allowed
    worst = int(excess.argmax())
    assert float(excess.max()) <= 0, (float(lower[worst]), float(upper[worst]))
    excess = foot - (below[0] * middle + below[1])[:, 0] - allowed
    worst = int(excess.argmax())
    assert name == "exp" or float(excess.max()) <= 0, (float(lower[worst]), float(upper[worst]))


@pytest.mark.parametrize("name", CASES)
def test_the_lines_meet_the_function_on_an_interval_without_width(name):
    op, domain = CASES[name]
    x = torch.linspace(-7.3, 7.1, 331).double()[:, None]
    x = torch.cat([x, torch.tensor([[0.0], [0.5], [1.0], [-3.0], [3.0]]).double()])
    x = x.abs() if domain in (POSITIVE, ABOVE) else x
    x = x + 1.001 if domain == ABOVE else x / 7.5 if domain == INSIDE else x
    x = x[x != 0][:, None] if domain == NONZERO or name in ("log", "rsqrt") else x
    op, below, above = found(name, x, x)
    value, slack = op.forward(x), 1e-7 if name == "softplus" else 1e-9
    assert torch.allclose(below[0] * x + below[1], value, atol=slack, rtol=1e-9) or "early" in name
    assert torch.allclose(above[0] * x + above[1], value, atol=slack, rtol=1e-9) or "early" in name


@pytest.mark.parametrize("name", CASES)
def test_nan_ends_give_nan_lines(name):
    one = torch.tensor([[0.5 if CASES[name][1] == INSIDE else 1.0]]).double()
    nan = torch.full_like(one, math.nan)
    for lower, upper in ((nan, one), (one, nan), (nan, nan), (-one, nan), (nan, -one)):
        _, below, above = found(name, lower, upper)
        for slope, offset in (below, above):
            assert bool((slope * one + offset).isnan().all())


@pytest.mark.parametrize(
    ("name", "lower", "upper"),
    [
        ("log", -1.0, 2.0),
        ("log", 0.0, 2.0),
        ("sqrt", -0.1, 2.0),
        ("reciprocal", -1.0, 2.0),
        ("reciprocal", 0.0, 2.0),
        ("inverse-square", -1.0, 1.0),
        ("power-1.5", -1.0, 1.0),
        ("rsqrt", 0.0, 1.0),
        ("acosh", 0.9, 2.0),
        ("atanh", -1.0, 0.5),
        ("asin", 0.0, 1.1),
        ("tan", 1.0, 2.0),
        ("tan", -4.0, 4.0),
        ("tan", 0.0, 3.2),
    ],
)
def test_intervals_outside_the_domain_give_nan_lines(name, lower, upper):
    ends = torch.tensor([[lower]]).double(), torch.tensor([[upper]]).double()
    _, below, above = found(name, *ends)
    for slope, offset in (below, above):
        assert bool((slope + offset).isnan().all())


@pytest.mark.parametrize("name", [n for n in CASES if n not in JUMPS])
def test_gradients_are_finite_and_those_of_the_lines(name):
    """A training step needs them; for smooth functions a difference quotient agrees."""
    lower, upper = ends(name, torch.float64)
    keep = (upper - lower)[:, 0] > 1e-3
    lower, upper = lower[keep].requires_grad_(), upper[keep].requires_grad_()
    _, below, above = found(name, lower, upper)
    middle = ((lower + upper) / 2).detach()
    height = sum((slope * middle + offset).sum() for slope, offset in (below, above))
    for gradient in torch.autograd.grad(height, (lower, upper)):
        assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("name", ["gelu", "silu", "tanh", "atan", "sin", "exp", "reciprocal"])
def test_gradients_agree_with_difference_quotients(name):
    g = torch.Generator().manual_seed(2)
    centre = 4 * torch.rand(60, 1, generator=g, dtype=torch.float64) - 2
    half = 2 * torch.rand(60, 1, generator=g, dtype=torch.float64) + 0.3
    if name == "reciprocal":
        centre = centre.abs() + half + 0.5
    lower, upper = (centre - half).requires_grad_(), (centre + half).requires_grad_()
    at = (centre + 0.37 * half).detach()

    def heights(low, high):
        _, below, above = found(name, low, high)
        return torch.cat([slope * at + offset for slope, offset in (below, above)], 1)

    for k in range(2):
        gradients = torch.autograd.grad(heights(lower, upper)[:, k].sum(), (lower, upper))
        step = 1e-5
        moved = [
            (heights(lower + step, upper) - heights(lower - step, upper))[:, k] / (2 * step),
            (heights(lower, upper + step) - heights(lower, upper - step))[:, k] / (2 * step),
        ]
        for gradient, quotient in zip(gradients, moved, strict=True):
            close = (gradient[:, 0] - quotient).abs() <= 1e-4 * (1 + quotient.abs())
            assert int((~close).sum()) <= 2  # a case may change within the step


def test_the_lower_line_of_exp_is_positive():
    lower = torch.linspace(-20, 3, 50).double()[:, None]
    for width in (0.0, 0.5, 2.0, 8.0, 30.0):
        _, (slope, offset), _ = found("exp", lower, lower + width)
        assert bool((slope * lower + offset > 0).all())


def test_waves_are_constants_where_their_argument_is_not_known():
    """A float64 near 1e17 is no position within a period."""
    lower = torch.tensor([[1e17], [-3e16]]).double()
    for name in ("sin", "cos"):
        _, below, above = found(name, lower, lower + 64)
        for (slope, offset), value in ((below, -1.0), (above, 1.0)):
            assert bool((slope == 0).all() and (offset == value).all())


def test_steps_by_hand():
    """Sign on [-2, 6] and [-6, 2]; floor on [0.2, 3.5]; round on [0.2, 0.8]."""
    lower, upper = torch.tensor([[-2.0], [-6.0]]), torch.tensor([[6.0], [2.0]])
    _, below, above = found("sign", lower, upper)
    assert above[0].flatten().tolist() == pytest.approx([0.0, 1 / 3])
    assert above[1].flatten().tolist() == [1.0, 1.0]
    assert below[0].flatten().tolist() == pytest.approx([1 / 3, 0.0])
    assert below[1].flatten().tolist() == [-1.0, -1.0]
    _, below, above = found("floor", torch.tensor([[0.2]]), torch.tensor([[3.5]]))
    assert (float(above[0]), float(above[1])) == (1.0, 0.0)
    assert (float(below[0]), float(below[1])) == (1.0, -1.0)
    _, below, above = found("round", torch.tensor([[0.2]]), torch.tensor([[0.7]]))
    assert float(above[0]) == pytest.approx(1 / 0.3, rel=1e-5)
    assert float(above[1]) == pytest.approx(1 - 0.5 / 0.3, rel=1e-5)
    assert (float(below[0]), float(below[1])) == (0.0, 0.0)
