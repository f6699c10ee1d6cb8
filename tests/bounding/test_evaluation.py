"""What one evaluation of an operation may lose, against the engines themselves."""

import math

import pytest
import torch
from docs.tools.errors import FUNCTIONS, onnx_values, places, torch_values
from torch import nn

import certus
from certus.bounding.engine import Engine, engine_of, key
from certus.bounding.evaluation import local_error
from certus.bounding.rounding import passed
from certus.graph.activation import Clamp
from certus.graph.affine import BatchNorm, Conv, Fourier, Linear, MatMul, Scale, Sum
from certus.graph.bilinear import Mul, Product
from certus.graph.extremum import Norm
from certus.graph.graph import Graph, Node
from certus.graph.op import Affine, Input
from certus.graph.piecewise import Step
from certus.graph.powers import Power
from certus.graph.smooth import Softplus
from certus.graph.softmax import LogSumExp, Softmax
from certus.graph.structural import AvgPool, CumSum, Reduce, Resize
from certus.graph.whole import FloorDivide

TORCH, ONNX = Engine("torch", torch.float32), Engine("onnxruntime", torch.float32)


def alone(op, *shapes):
    """A graph of one operation on inputs of these shapes, as far as local errors read it."""
    out = op.forward(*[torch.zeros(1, *shape) for shape in shapes]).shape[1:]
    inputs = tuple(Node(Input(), (), tuple(shape)) for shape in shapes)
    node = Node(op, tuple(range(len(shapes))), tuple(out))
    return Graph((*inputs, node), len(shapes), lambda x: x), node


def allowed(op, points, engine=TORCH):
    """The local error at points: ranges without width."""
    graph, node = alone(op, *[tuple(x.shape[1:]) for x in points])
    found = local_error(graph, node, [(x, x) for x in points], engine)
    return torch.zeros(()) if found is None else found


def patterns(count):
    """Summands that sums lose most on: constant, sorted both ways, alternating, small after large."""
    g = torch.Generator().manual_seed(count)
    values = torch.rand(count, generator=g)
    small = torch.full((count,), 0.9 * 2.0**-24)
    small[0] = 1.0
    alternating = values * torch.tensor([1.0, -1.0]).repeat(-(-count // 2))[:count]
    rising = values.sort().values
    return [torch.full((count,), 0.7), rising, rising.flip(0), alternating, small, small.flip(0)]


def summing(count):
    """Operations that sum `count` numbers, with the shape of their input."""
    side = math.isqrt(count)
    ones = torch.ones(3, count)
    found = [
        (Linear(ones, torch.ones(3)), (count,)),
        (MatMul(ones.T), (2, count)),
        (Reduce((1,), False), (count,)),
        (CumSum(1), (count,)),
    ]
    if side * side == count:
        kernel = torch.ones(4, 1, side, side)
        found += [
            (Conv(kernel, None, (1, 1), (0, 0), (1, 1)), (1, side, side)),
            (AvgPool((side, side), (side, side), (0, 0)), (1, side, side)),
        ]
    return found


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("count", [16, 256, 4096, 2**16])
def test_sums_lose_no_more_than_is_charged(count, batch):
    for op, shape in summing(count):
        for values in patterns(count):
            x = (
                values.expand(batch, *shape[:-1], count)
                if shape[-1] == count
                else values.expand(batch, count)
            )
            x = x.reshape(batch, *shape).contiguous()
            exact = double(op).forward(x.double())
            assert bool(((op.forward(x) - exact).abs() <= allowed(op, [x])).all()), op.name


@pytest.mark.parametrize("count", [8, 60, 127, 211, 1009, 1024])
def test_fast_transforms_lose_no_more_than_is_charged(count):
    """Also of prime lengths, whose chirps err most, and where a plain sum of the terms would be zero."""
    matrix = torch.view_as_real(torch.fft.fft(torch.eye(count).double())).flatten(1).T
    op = Fourier(matrix.float().contiguous())
    spike = torch.zeros(count).index_fill(0, torch.tensor([count // 3]), 1.0)
    for values in [*patterns(count), spike, torch.arange(count) % 2 - 0.5]:
        x = values.view(1, -1)
        error = torch.fft.fft(x) - torch.fft.fft(x.double())
        lost = torch.view_as_real(error).abs().flatten(1)
        assert bool((lost <= allowed(op, [x])).all())


def test_limits_that_a_float_rounds_are_charged_where_they_are_reached():
    x = torch.linspace(-2, 2, 4001)[:, None]
    for low, high in ((-0.1, 0.3), (-1 / 3, 1e30), (-123456789.1, 0.7), (-1e38, 16777217.0)):
        op = Clamp(low, high)
        lost = (op.forward(x).double() - op.forward(x.double())).abs()
        charged = allowed(op, [x])
        assert bool((lost <= charged).all())
        reached = (x <= low) | (x >= high)
        assert bool((charged[~reached & (x > low + 1e-6) & (x < high - 1e-6)] == 0).all())
        wide, node = alone(op, (1,))
        whole = local_error(wide, node, [(x - 9e37, x + 9e37)], TORCH)
        assert float(whole.min()) >= float(lost.max())


def double(op):
    """The operation with its parameters in float64."""
    own = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in vars(op).items()}
    return type(op)(**own)


def test_a_convolution_loses_nearly_all_that_is_charged():
    """Its sum runs from the first to the last: a smaller charge than gamma_n would be no bound."""
    op, x = (
        Conv(torch.ones(2, 1, 64, 64), None, (1, 1), (0, 0), (1, 1)),
        torch.full((1, 1, 64, 64), 0.9 * 2.0**-24),
    )
    x[0, 0, 0, 0] = 1.0
    lost = (op.forward(x) - double(op).forward(x.double())).abs().max()
    assert float(lost) > 0.02 * float(allowed(op, [x]).max())


@pytest.mark.parametrize("op", FUNCTIONS, ids=key)
@pytest.mark.parametrize("engine", [TORCH, ONNX], ids=["torch", "onnxruntime"])
def test_functions_err_no_more_than_the_table_says(op, engine):
    if engine is ONNX:
        pytest.importorskip("onnxruntime")
    x = places(op, torch.float32, few=True)
    x = x[torch.isfinite(op.forward(x.double())) & (op.forward(x.double()).abs() < 1e38)]
    exact, limit = op.forward(x.double()), allowed(op, [x.view(-1, 1)], engine).view(-1)
    values = torch_values if engine is TORCH else onnx_values
    for found in values(op, x):
        error = (found.double() - exact[: len(found)]).abs()
        assert bool(((error <= limit[: len(found)]) | found.isnan()).all())


@pytest.mark.parametrize("spread", [1.0, 30.0, 200.0])
def test_softmax_and_products_lose_no_more_than_is_charged(spread):
    g = torch.Generator().manual_seed(1)
    x, y = (spread * torch.randn(40, 64, 64, generator=g) for _ in range(2))
    for op, points in (
        (Softmax(2), [x]),
        (LogSumExp(2), [x]),
        (Product(), [x, y]),
        (Product(True), [x, y]),
        (Mul(), [x, y]),
        (Sum(-1.0), [x, y]),
        (Scale(torch.tensor(1 / 3), divide=True), [x]),
    ):
        exact = (double(op) if isinstance(op, Affine) else op).forward(
            *[p.double() for p in points]
        )
        assert bool(((op.forward(*points) - exact).abs() <= allowed(op, points)).all()), op.name


def test_a_batch_normalisation_that_cancels_is_charged_for_both_terms():
    """Over many channels, so that what scales lose does not depend on how one of them rounds."""
    mean, bias = torch.linspace(12000, 13000, 99), torch.linspace(21900, 23750, 99)
    op = BatchNorm(None, bias, mean, torch.full((99,), 0.3), 1e-5)
    x = torch.linspace(0, 1, 500).view(-1, 1).expand(-1, 99)
    exact = double(op).forward(x.double())
    assert bool(((op.forward(x) - exact).abs() <= allowed(op, [x])).all())
    assert float((op.forward(x) - exact).abs().max()) > 3e-5


def test_reduced_precision_of_products_is_charged():
    graph = certus.trace(nn.Linear(8, 2).eval(), torch.zeros(1, 8))
    full = engine_of(graph, torch.float32)
    try:
        torch.set_float32_matmul_precision("medium")
        reduced = engine_of(graph, torch.float32)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert full.factors == 0 and reduced.sums(8) > 2 * 2.0**-8
    assert engine_of(graph, torch.float64).factors == 0


def test_autocast_is_refused():
    net, x = nn.Linear(8, 2).eval(), torch.rand(1, 8)
    graph = certus.trace(net, x)
    with torch.autocast("cpu", torch.bfloat16):
        for method in ("ibp", "crown", "milp", "lipschitz"):
            with pytest.raises(certus.UnsupportedError, match="autocast"):
                certus.certify(graph, x, torch.tensor([0]), certus.Linf(0.1), method)
        with pytest.raises(certus.UnsupportedError, match="autocast"):
            certus.bounds(graph, x, certus.Linf(0.1))


def test_a_jump_within_the_error_of_an_end_is_seen():
    """A value that is above zero on paper and may be below it in floats."""
    range_ = (torch.tensor([[1e-6, 1e-3]]), torch.tensor([[1.0, 1.0]]))
    found = passed[Step](Step(), [torch.full((1, 2), 1e-5)], [range_])
    assert found[0, 0] == math.inf and found[0, 1] < 1e-5


@pytest.mark.parametrize("exponent", [0.1, 40.3, 1000.7, -3.7, -0.1])
def test_exponents_that_the_dtype_rounds_are_charged(exponent):
    x = torch.linspace(0.05, 1.05, 4001).view(-1, 1)
    op = Power(exponent)
    exact = op.forward(x.double())
    near = (exact < 1e30).flatten()
    limit = allowed(op, [x])
    assert bool(((op.forward(x) - exact).abs() <= limit)[near].all())


def test_floor_division_says_nothing_where_whole_numbers_are_not_apart():
    """float64 still tells them apart where float32 does not."""
    op, x = FloorDivide(torch.tensor([0.1]).double()), torch.tensor([[1e3, 1e8]]).double()
    assert allowed(op, [x]).tolist() == [[0.0, math.inf]]


def test_a_switch_that_rounding_may_flip_is_charged():
    """The smooth part and the line beyond differ by a third where the switch comes early."""
    op = Softplus(threshold=1.0)
    beside = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0)).view(1, 1)
    assert float(allowed(op, [beside])) > 0.3 and float(allowed(op, [beside - 0.1])) < 1e-3


@pytest.mark.parametrize("method", ["ibp", "crown", "zonotope"])
def test_a_function_that_overflows_between_finite_ends_proves_nothing(method):
    """torch's softplus takes exp of beta x up to its switch, however late that is."""

    class Late(nn.Module):
        def forward(self, x):
            return torch.cat([0 * x + 200, nn.functional.softplus(x, 1.0, 100.0)], 1)

    net, x = Late().eval(), torch.tensor([[75.0]])
    assert net(torch.tensor([[95.0]]))[0, 1] == math.inf
    found = certus.certify(net, x, torch.tensor([0]), certus.Linf(30.0, clip=None), method)
    assert not bool(found.certified.any())


def test_sums_of_terms_that_may_overflow_prove_nothing():
    op, x = Linear(torch.tensor([[1.0, -1.0]])), torch.tensor([[3e38, 3e38], [3.0, 3.0]])
    assert allowed(op, [x])[:, 0].isinf().tolist() == [True, False]
    assert allowed(Mul(), [x, x])[0].isinf().all() and allowed(Norm(2.0, (1,)), [x])[0].isinf()


@pytest.mark.parametrize("op", [Resize((13, 5), "bilinear"), Resize((9, 21), "bilinear", True)])
def test_weights_of_an_interpolation_are_off_also_where_they_are_zero(op):
    for hot in range(7):
        x = torch.zeros(1, 1, 7, 7)
        x[0, 0, hot, hot] = 1.0
        exact = op.forward(x.double())
        assert bool(((op.forward(x) - exact).abs() <= allowed(op, [x])).all())
