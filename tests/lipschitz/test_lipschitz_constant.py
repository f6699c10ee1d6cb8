"""Constants of operations and networks are never exceeded, and close for single operations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from tests.lipschitz.graphs import build
from torch import Tensor

from certus.core import ModelError, UnsupportedError
from certus.graph.activation import Clamp, LeakyRelu, MaxPool, Relu, Sigmoid, Tanh
from certus.graph.affine import BatchNorm, Conv, Linear, MatMul, Scale, Shift, Sum
from certus.graph.graph import Graph
from certus.graph.op import Op
from certus.graph.structural import (
    AdaptiveAvgPool,
    AvgPool,
    Concat,
    Expand,
    Pad,
    Permute,
    Reduce,
    Reshape,
    Slice,
)
from certus.lipschitz import lipschitz


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Seeded normal numbers in float64."""
    make = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=make, dtype=torch.float64)


def network(ops: Sequence[tuple[Op, tuple[int, ...]]], shape: tuple[int, ...]) -> Graph:
    """A graph of these operations."""
    like = torch.zeros(1, dtype=torch.float64)
    return build(
        [(op, inputs, f"net.py:{i}") for i, (op, inputs) in enumerate(ops)], shape, abs, like
    )


def jacobian_norm(graph: Graph, x: Tensor) -> float:
    """Operator norm of the derivative at x [*shape]: a lower bound of the Lipschitz constant."""
    jacobian = torch.func.jacrev(lambda v: graph(v[None])[0].flatten())(x)
    return torch.linalg.matrix_norm(jacobian.flatten(1), 2).item()


def batch_norm(channels: int) -> BatchNorm:
    """Random statistics and weights."""
    return BatchNorm(
        draw(channels, seed=5), draw(channels), draw(channels), draw(channels).square() + 0.1, 1e-5
    )


# operation, input shape, how far above the exact norm the bound may lie
AFFINE = [
    (Linear(draw(3, 5), draw(3)), (5,), 1.0),
    (Linear(draw(3, 5)), (4, 2, 5), 1.0),
    (Conv(draw(3, 2, 3, 3), None, (2, 1), (1, 0), (1, 2), 1), (2, 9, 8), 1.4),
    (batch_norm(3), (3, 4, 4), 1.0),
    (batch_norm(3), (3,), 1.0),
    (Scale(draw(3, 1, 1)), (3, 2, 2), 1.0),
    (Scale(draw(1, 3, 2, 2)), (3, 1, 1), 2.0),
    (Scale(torch.tensor(-2.0)), (3,), 1.0),
    (Shift(draw(3, 1, 1)), (3, 2, 2), 1.0),
    (Shift(draw(3, 2, 2)), (3, 1, 1), 1.0),
    (Reshape((6,)), (2, 3), 1.0),
    (Permute((0, 2, 1)), (2, 3), 1.0),
    (Slice(1, 1, 4, 2), (5,), 1.0),
    (Pad((1, 2, 0, 1), 3.0), (2, 3, 3), 1.0),
    (Pad((-1, 0)), (5,), 1.0),
    (Expand((3, 4)), (3, 1), 1.0),
    (Reduce((2, 3), False, 0.25), (3, 2, 2), 1.0),
    (Reduce((1,), True), (4,), 1.0),
    (AvgPool((2, 2), (2, 2), (0, 0)), (2, 6, 6), 1.0),
    (AvgPool((3, 3), (2, 2), (1, 1)), (1, 7, 7), 1.0),
    (AvgPool((3, 3), (1, 1), (1, 1)), (1, 7, 7), 1.0),
    (AvgPool((3, 3), (2, 2), (1, 1), False, False), (1, 6, 6), 1.0),
    (AvgPool((3, 2), (2, 2), (1, 0), True, True), (1, 6, 7), 1.0),
    (AvgPool((3,), (2,), (0,), True, False), (2, 6), 1.0),
    (AdaptiveAvgPool((3, 2)), (2, 7, 5), 1.0),
    (MatMul(draw(4, 3)), (2, 4), 1.0),
    (MatMul(draw(3, 4), left=True), (4, 2), 1.0),
    (MatMul(draw(2, 4, 3)), (2, 5, 4), 1.0),
    (MatMul(draw(2, 4, 3)), (1, 5, 4), 1.5),
]


@pytest.mark.parametrize(("op", "shape", "slack"), AFFINE, ids=lambda v: getattr(v, "name", str(v)))
def test_affine_operations(op: Op, shape: tuple[int, ...], slack: float) -> None:
    """The exact norm is below the bound, and the bound below slack times the norm."""
    graph = network([(op, (0,))], shape)
    exact = jacobian_norm(graph, draw(*shape))
    bound = lipschitz(graph)[-1]
    assert exact <= bound * (1 + 1e-12)
    assert bound <= exact * slack * (1 + 1e-6)


@pytest.mark.parametrize("factor", [1.0, -2.0])
def test_sum_and_concat(factor: float) -> None:
    """x + f A x, side by side, and with a broadcast operand."""
    matrix = draw(4, 4)
    paths = [(Linear(matrix), (0,)), (Sum(factor), (0, 1)), (Concat(1), (1, 2, 0))]
    graph = network(paths, (4,))
    norm = torch.linalg.matrix_norm(matrix, 2).item()
    found = lipschitz(graph)
    assert found[2] == pytest.approx(1 + abs(factor) * norm)
    assert found[3] == pytest.approx(math.hypot(norm, found[2], 1))
    assert jacobian_norm(graph, draw(4)) <= found[3]
    spread = network([(Reduce((2,), True), (0,)), (Sum(factor), (0, 1))], (2, 5))
    assert jacobian_norm(spread, draw(2, 5)) <= lipschitz(spread)[-1] * (1 + 1e-12)


POOLS = [
    (MaxPool((2, 2), (2, 2), (0, 0)), 1),
    (MaxPool((3, 3), (2, 2), (1, 1)), 4),
    (MaxPool((3, 3), (1, 1), (1, 1)), 9),
    (MaxPool((3, 2), (2, 1), (1, 1), (1, 2)), 4),
    (MaxPool((3, 3), (2, 2), (0, 0), (2, 2), True), 9),
    (MaxPool((4, 4), (3, 3), (1, 1), (2, 1), True), 4),
]


@pytest.mark.parametrize(("pool", "count"), POOLS, ids=str)
def test_max_pool_is_reached_by_one_spike(pool: MaxPool, count: int) -> None:
    """Raising one element moves every window that holds it: the root of their number is exact."""
    graph = network([(pool, (0,))], (1, 12, 12))
    spikes = torch.eye(144, dtype=torch.float64).reshape(144, 1, 12, 12)
    moved = (graph(spikes) - graph(torch.zeros_like(spikes))).flatten(1).norm(dim=1).amax().item()
    bound = lipschitz(graph)[-1]
    assert bound == pytest.approx(math.sqrt(count))
    assert moved <= bound <= moved * (1 + 1e-8)


@pytest.mark.parametrize("op", [Relu(), LeakyRelu(0.2), Clamp(-1.0, 1.0), Sigmoid(), Tanh()])
def test_elementwise(op: Op) -> None:
    """The steepest slope on a grid is the bound."""
    graph = network([(op, (0,))], (1,))
    grid = torch.linspace(-4, 4, 4001, dtype=torch.float64)[:, None]
    slope = (graph(grid).diff(dim=0) / grid.diff(dim=0)).abs().amax().item()
    assert slope <= lipschitz(graph)[-1] + 1e-9 <= slope * 1.001


def branching(seed: int) -> Graph:
    """Convolution, BatchNorm, overlapping max pool, residual sum, concatenation, linear head."""
    first = Conv(draw(4, 2, 3, 3, seed=seed), draw(4), (1, 1), (1, 1), (1, 1), 1)
    second = Conv(draw(4, 4, 3, 3, seed=seed + 1), None, (1, 1), (1, 1), (1, 1), 1)
    ops = [
        (first, (0,)),
        (batch_norm(4), (1,)),
        (Relu(), (2,)),
        (second, (3,)),
        (Sum(), (3, 4)),
        (Tanh(), (5,)),
        (MaxPool((3, 3), (2, 2), (1, 1)), (6,)),
        (AvgPool((3, 3), (2, 2), (1, 1)), (5,)),
        (Concat(1), (7, 8)),
        (Reshape((72,)), (9,)),
        (Linear(draw(5, 72, seed=seed + 2), draw(5)), (10,)),
    ]
    return network(ops, (2, 6, 6))


@pytest.mark.parametrize("seed", range(4))
def test_networks_keep_their_constants(seed: int) -> None:
    """At every node, difference quotients and derivatives at random points stay below."""
    graph = branching(seed)
    bounds = lipschitz(graph)
    x = draw(400, 2, 6, 6, seed=seed)
    steps = torch.logspace(-4, 0.5, 400, dtype=torch.float64).view(-1, 1, 1, 1)
    z = x + steps * draw(400, 2, 6, 6, seed=seed + 9)
    moved = (x - z).flatten(1).norm(dim=1)
    for bound, a, b in zip(bounds, graph.values(x), graph.values(z), strict=True):
        assert ((a - b).flatten(1).norm(dim=1) / moved).amax() <= bound
    for point in x[:10]:
        assert jacobian_norm(graph, point / 10) <= bounds[-1]


def test_batch_norm_after_a_map_uses_the_product() -> None:
    """diag(100, 1) after diag(0.01, 1) has norm 1, not 100."""
    small = torch.tensor([0.01, 1.0], dtype=torch.float64)
    large = torch.tensor([100.0, 1.0], dtype=torch.float64)
    zeros, ones = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    norm = BatchNorm(large, None, zeros, ones, 0.0)
    dense = network([(Linear(small.diag()), (0,)), (norm, (1,))], (2,))
    weight = small.diag().view(2, 2, 1, 1)
    conv = network([(Conv(weight, None, (1, 1), (0, 0), (1, 1), 1), (0,)), (norm, (1,))], (2, 3, 3))
    for graph in (dense, conv):
        assert 1 <= lipschitz(graph)[-1] <= 1 + 1e-6
        assert jacobian_norm(graph, draw(*graph.input_shape)) <= lipschitz(graph)[-1]


@dataclass(frozen=True, eq=False)
class Square(Op):
    """An operation without a rule."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """x squared."""
        return inputs[0].square()


@dataclass(frozen=True, eq=False)
class Cube(Square):
    """Another one."""


def test_unsupported_operations_are_named_at_once() -> None:
    """Every class and place in one error."""
    graph = network([(Square(), (0,)), (Relu(), (1,)), (Cube(), (2,))], (3,))
    with pytest.raises(UnsupportedError, match=r"Cube \(net.py:2\), Square \(net.py:0\)"):
        lipschitz(graph)


def test_broadcast_over_the_batch_is_refused() -> None:
    """A constant with a row for each input of a batch is not a map of one input."""
    graph = network([(Scale(draw(1, 3)), (0,))], (3,)).substituted({1: Scale(draw(2, 3))})
    with pytest.raises(UnsupportedError, match="Scale"):
        lipschitz(graph)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_broken_weights_are_refused(value: float) -> None:
    """NaN and infinity name the parameter."""
    graph = network([(Linear(torch.full((2, 2), value, dtype=torch.float64)), (0,))], (2,))
    with pytest.raises(ModelError, match=r"1\.weight"):
        lipschitz(graph)


def test_overflow_is_refused() -> None:
    """A constant beyond float64 is no bound."""
    huge = 1e200 * torch.eye(2, dtype=torch.float64)
    with pytest.raises(ModelError, match="overflows"):
        lipschitz(network([(Linear(huge), (0,)), (Linear(huge), (1,))], (2,)))
