"""Elementwise operations: values, images, slopes, domains, against torch, sampling and autograd."""

import math

import pytest
import torch
import torch.nn.functional as F

from certus.bounding.rounding import passed
from certus.graph import inverse, smooth
from certus.graph.activation import Sigmoid, Tanh
from certus.graph.curved import Curved
from certus.graph.op import Elementwise, Increasing
from certus.graph.piecewise import Jumps

SELU = (1.6732632423543772, 1.0507009873554805)
X = (-9.0, 9.0)
UP, AWAY = (1e-3, 9.0), (0.05, 9.0)
WEIGHT = torch.tensor([0.25, -0.7, 3.0]).double()
# operation, the same in torch, where to look (AWAY: on both sides of zero)
CASES = {
    "sigmoid": (Sigmoid(), torch.sigmoid, X),
    "tanh": (Tanh(), torch.tanh, X),
    "elu": (smooth.Elu(), F.elu, X),
    "elu-0.4": (smooth.Elu(0.4), lambda x: F.elu(x, 0.4), X),
    "selu": (smooth.Elu(*SELU), F.selu, X),
    "celu": (smooth.Celu(0.7), lambda x: F.celu(x, 0.7), X),
    "softplus": (smooth.Softplus(), F.softplus, X),
    "softplus-early": (smooth.Softplus(2.0, 3.0), lambda x: F.softplus(x, 2.0, 3.0), X),
    "softplus-exact": (smooth.Softplus(3.0, math.inf), lambda x: F.softplus(x, 3.0, 200.0), X),
    "gelu": (smooth.Gelu(), F.gelu, X),
    "gelu-tanh": (smooth.Gelu(True), lambda x: F.gelu(x, approximate="tanh"), X),
    "silu": (smooth.Silu(), F.silu, X),
    "hardswish": (smooth.HardSwish(), F.hardswish, X),
    "mish": (smooth.Mish(), F.mish, X),
    "softsign": (smooth.Softsign(), F.softsign, X),
    "logsigmoid": (smooth.LogSigmoid(), F.logsigmoid, X),
    "erf": (smooth.Erf(), torch.erf, X),
    "atan": (smooth.Atan(), torch.atan, X),
    "asinh": (inverse.Asinh(), torch.asinh, X),
    "acosh": (inverse.Acosh(), torch.acosh, (1 + 1e-3, 9.0)),
    "atanh": (inverse.Atanh(), torch.atanh, (-0.999, 0.999)),
    "asin": (inverse.Asin(), torch.asin, (-0.999, 0.999)),
    "exp": (smooth.Exp(), torch.exp, X),
    "log": (smooth.Log(), torch.log, UP),
    "sqrt": (smooth.Sqrt(), torch.sqrt, UP),
    "reciprocal": (smooth.Reciprocal(), torch.reciprocal, AWAY),
    "square": (smooth.Power(2.0), torch.square, X),
    "cube": (smooth.Power(3.0), lambda x: x * x * x, X),
    "power-0": (smooth.Power(0.0), torch.ones_like, X),
    "power-1": (smooth.Power(1.0), lambda x: x, X),
    "power-1.5": (smooth.Power(1.5), lambda x: x * x.sqrt(), UP),
    "power-0.25": (smooth.Power(0.25), lambda x: x.sqrt().sqrt(), UP),
    "rsqrt": (smooth.Power(-0.5), torch.rsqrt, UP),
    "inverse-square": (smooth.Power(-2.0), lambda x: 1 / x / x, AWAY),
    "inverse-cube": (smooth.Power(-3.0), lambda x: 1 / x / x / x, AWAY),
    "sin": (smooth.Sin(), torch.sin, X),
    "cos": (smooth.Cos(), torch.cos, X),
    "tan": (smooth.Tan(), torch.tan, (-1.55, 1.55)),
    "abs": (smooth.Abs(), torch.abs, X),
    "sign": (smooth.Sign(), torch.sign, X),
    "floor": (smooth.Floor(), torch.floor, X),
    "ceil": (smooth.Ceil(), torch.ceil, X),
    "round": (smooth.Round(), torch.round, X),
    "step": (smooth.Step(), lambda x: (x > 0).double(), X),
    "step-at-0": (smooth.Step(inclusive=True), lambda x: (x >= 0).double(), X),
    "prelu": (smooth.Prelu(WEIGHT), lambda x: torch.where(x > 0, x, WEIGHT * x), X),
}


def boxes(name, count=200):
    """[count, 3] ends inside the region of a case: random, narrow, on marks, without width."""
    low, high = CASES[name][2]
    g = torch.Generator().manual_seed(11)
    pair = low + (high - low) * torch.rand(2, count, 3, generator=g, dtype=torch.float64)
    pair[1, ::4] = pair[0, ::4] + 0.05 * torch.rand(count // 4, 3, generator=g, dtype=torch.float64)
    pair[1, ::7] = pair[0, ::7]
    marks = torch.tensor([-6.0, -3.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0]).double()
    pair[0, 1::9], pair[1, 2::9] = (
        marks[torch.randint(10, (len(pair[0, 1::9]), 3), generator=g)],
        0.0,
    )
    pair = pair.clamp(low, high)
    lower, upper = pair.amin(0), pair.amax(0)
    if CASES[name][2] == AWAY:
        flip = torch.rand(count, 3, generator=g) < 0.5
        lower, upper = torch.where(flip, -upper, lower), torch.where(flip, -lower, upper)
    return lower, upper


def samples(lower, upper, count=501, marks=()):
    """[count, N, 3] points from l to u, with zero, kinks and quarter turns where they are inside."""
    share = torch.linspace(0, 1, count, dtype=lower.dtype)[:, None, None]
    quarter = torch.arange(-6, 7).double() * math.pi / 2
    marks = torch.cat([quarter, torch.tensor([-3.0, 3.0, *marks], dtype=torch.float64)])
    x = torch.cat([lower + share * (upper - lower), marks[:, None, None].expand(-1, *lower.shape)])
    return torch.minimum(torch.maximum(x, lower), upper).sort(0).values


@pytest.mark.parametrize("name", CASES)
def test_values_are_torchs(name):
    op, same, _ = CASES[name]
    x = samples(*boxes(name), 20)
    assert torch.allclose(op.forward(x), same(x), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_the_image_holds_all_values_and_is_attained(name):
    op, _, _ = CASES[name]
    lower, upper = boxes(name)
    low, high = op.image(lower, upper)
    value = op.forward(samples(lower, upper, 501, (1.5, 1.5 + 1e-12, *getattr(op, "turns", ()))))
    size = 1 + value.abs().amax(0)
    assert bool((value >= low - 1e-12 * size).all() and (value <= high + 1e-12 * size).all())
    assert bool((value.amin(0) <= low + 1e-9 * size).all())
    assert bool((value.amax(0) >= high - 1e-9 * size).all())


@pytest.mark.parametrize("name", CASES)
def test_slopes_hold_every_difference_quotient(name):
    op, _, _ = CASES[name]
    lower, upper = boxes(name)
    low, high = op.slopes(lower, upper)
    assert low.shape == lower.shape
    x = samples(lower, upper, 401)
    for step in (1, 20, 200):
        run, rise = x[step:] - x[:-step], op.forward(x)[step:] - op.forward(x)[:-step]
        quotient = rise / run
        size = 1 + quotient.abs().where(run > 1e-7, 0.0)
        assert bool((quotient >= low - 1e-6 * size)[run > 1e-7].all())
        assert bool((quotient <= high + 1e-6 * size)[run > 1e-7].all())
        assert bool((quotient[run > 1e-7].abs() <= op.lipschitz * (1 + 1e-7)).all())


@pytest.mark.parametrize("name", [n for n in CASES if isinstance(CASES[n][0], Curved)])
def test_curvature_is_as_promised(name):
    """The derivative is autograd's, has its extremes at bends, and the values theirs at turns."""
    op, _, (low, high) = CASES[name]
    x = torch.linspace(low, high, 4001, dtype=torch.float64)
    x = x[(x - x.round()).abs() > 1e-6]
    if name == "softplus-early":  # of the smooth function
        x = x[x < 1.5]
    x = x.requires_grad_()
    (slope,) = torch.autograd.grad(op.forward(x).sum(), x)
    x = x.detach()
    exact = 1e-7 if name == "celu" else 1e-9  # torch's gradient of celu rounds to float32
    assert torch.allclose(op.derivative(x), slope, atol=exact, rtol=1e-9)
    convex = torch.full_like(x, op.convex_first, dtype=torch.bool)
    for bend in op.bends:
        convex ^= x > bend
    change, same = slope.diff(), convex[1:] == convex[:-1]
    wrong = torch.where(convex[1:], -change, change)[same]
    assert float(wrong.max()) <= exact * float(slope.abs().max())
    rising = slope[x > max(op.turns)] if op.turns else slope
    assert bool((rising >= 0).all()) or bool((rising <= 0).all())


@pytest.mark.parametrize("name", [n for n in CASES if math.isfinite(CASES[n][0].lipschitz)])
def test_constants_are_nearly_attained(name):
    """A Lipschitz constant or bend that is far too large would cost tightness."""
    op, _, (low, high) = CASES[name]
    x = torch.linspace(low, high, 3 * 4000, dtype=torch.float64).view(-1, 3)
    measured = ((op.forward(x + 1e-6) - op.forward(x)) / 1e-6).abs().amax()
    assert float(measured) >= 0.99 * op.lipschitz


@pytest.mark.parametrize("name", CASES)
def test_nan_in_nan_out(name):
    """A NaN end leaves no usable pair of bounds, of the values as of the slopes."""
    op, _, _ = CASES[name]
    nan, one = torch.full((1, 3), math.nan).double(), torch.ones(1, 3).double()
    for lower, upper in ((nan, one), (-one, nan), (one, nan), (nan, -one), (nan, nan)):
        low, high = op.image(lower, upper)
        assert bool((low + high).isnan().all()) or name == "power-0"
        low, high = op.slopes(lower, upper)
        assert bool((low + high).isnan().all())


@pytest.mark.parametrize(
    ("op", "lower", "upper"),
    [
        (smooth.Log(), -1.0, 2.0),
        (smooth.Log(), 0.0, 2.0),
        (smooth.Sqrt(), -1e-9, 2.0),
        (smooth.Reciprocal(), -1.0, 2.0),
        (smooth.Reciprocal(), 0.0, 2.0),
        (smooth.Reciprocal(), -2.0, 0.0),
        (smooth.Power(-1.0), -1.0, 2.0),
        (smooth.Power(-2.0), -1.0, 2.0),
        (smooth.Power(0.5), -1.0, 2.0),
        (smooth.Power(-0.5), 0.0, 2.0),
        (smooth.Tan(), 1.5, 1.6),
        (smooth.Tan(), 0.0, math.pi),
        (smooth.Tan(), -7.0, 7.0),
        (smooth.Tan(), 1e7, 1e7),
    ],
)
def test_outside_the_domain_all_is_nan(op, lower, upper):
    ends = torch.tensor([lower]).double(), torch.tensor([upper]).double()
    for found in (*op.image(*ends), *op.slopes(*ends)):
        assert bool(found.isnan().all())


@pytest.mark.parametrize("bad", [{"alpha": -1.0}, {"scale": -2.0}, {"alpha": math.nan}])
def test_elu_refuses_what_does_not_increase(bad):
    with pytest.raises(ValueError, match="ELU needs"):
        smooth.Elu(**bad)


def test_other_parameters_are_refused():
    with pytest.raises(ValueError, match="CELU"):
        smooth.Celu(0.0)
    with pytest.raises(ValueError, match="Softplus"):
        smooth.Softplus(-1.0)
    with pytest.raises(ValueError, match="finite"):
        smooth.Power(math.inf)


def test_waves_far_from_zero():
    """In many periods, in float32 and where positions within a period cannot be told any more."""
    op = smooth.Sin()
    for centre in (1e3, 1e4, -5e5):
        lower = torch.tensor([centre, centre, centre + 0.3]).double()
        upper = lower + torch.tensor([0.1, 7.0, 1.9]).double()
        low, high = op.image(lower, upper)
        value = op.forward(samples(lower[None], upper[None], 20001))
        assert torch.allclose(value.amin(0)[0], low, atol=1e-6)
        assert torch.allclose(value.amax(0)[0], high, atol=1e-6)
    low, high = op.image(torch.tensor([1e9]), torch.tensor([1e9]))
    assert (float(low), float(high)) == (-1.0, 1.0)


@pytest.mark.parametrize("name", [n for n in CASES if isinstance(CASES[n][0], Increasing)])
def test_increasing_means_increasing(name):
    op, _, _ = CASES[name]
    x = samples(*boxes(name), 101)
    assert bool((op.forward(x).diff(dim=0) >= -1e-12).all())


@pytest.mark.parametrize("name", [n for n in CASES if not isinstance(CASES[n][0], Jumps)])
def test_errors_that_pass_are_finite_and_hold(name):
    """Errors of the input go through the slopes: they cover the value at a moved input."""
    op, _, region = CASES[name]
    lower, upper = boxes(name, 60)
    if region in (UP, AWAY):
        lower, upper = lower + 1e-2 * lower.sign(), upper + 1e-2 * upper.sign()
    error = torch.full_like(lower, 1e-4)
    guard = passed[type(op)](op, [error], [(lower, upper)])
    assert bool(guard.isfinite().all()) or name == "softplus-early"
    x = samples(lower, upper, 50)
    for move in (-1e-4, 1e-4):
        assert bool(((op.forward(x + move) - op.forward(x)).abs() <= guard + 1e-12).all())


def test_the_list_is_complete():
    """Every elementwise operation of these modules is in the table above."""

    def leaves(kind):
        below = [leaf for sub in kind.__subclasses__() for leaf in leaves(sub)]
        return below + ([] if kind.__abstractmethods__ else [kind])

    modules = {f"certus.graph.{m}" for m in ("smooth", "gated", "powers", "periodic", "piecewise")}
    ours = {kind for kind in leaves(Elementwise) if kind.__module__ in modules}
    assert {smooth.Mish, smooth.Tan, smooth.Prelu} <= ours
    # intermediate classes without abstract methods of their own still lack `forward`
    assert not [k.__name__ for k in ours - {type(op) for op, _, _ in CASES.values()}]
