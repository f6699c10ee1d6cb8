"""Certified radii: exact for linear classifiers, never broken by attacks; wrong formulas are."""

import math

import pytest
import torch
from tests.lipschitz.graphs import build
from torch import Tensor

from certus.core import ArgumentError, ModelError
from certus.graph.activation import MaxPool, Relu
from certus.graph.affine import Conv, Linear, Sum
from certus.graph.graph import Graph
from certus.graph.op import Op
from certus.graph.structural import Reshape
from certus.lipschitz import certified_radius, lipschitz, prepare


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Seeded normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def chain(ops: list[Op], shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Graph:
    """Operations one after the other."""
    return build(
        [(op, (i,), "") for i, op in enumerate(ops)], shape, abs, torch.zeros(1, dtype=dtype)
    )


def attack(graph: Graph, x: Tensor, y: Tensor, radius: Tensor, steps: int = 60) -> Tensor:
    """L2 PGD within `radius` [B] towards every class: smallest margin found [B]."""
    size = radius.view(-1, *[1] * (x.ndim - 1))
    best = torch.full((len(x),), math.inf, dtype=x.dtype)
    for target in range(graph.output_shape[0]):
        move = 0.5 * size * unit(draw(*x.shape, seed=target))
        for step in range(steps):
            move = move.detach().requires_grad_()
            z = graph(x + move)
            best = torch.minimum(best, margins(z, y).detach())
            gap = z.gather(1, y[:, None])[:, 0] - z[:, target]
            (slope,) = torch.autograd.grad(gap.sum(), move)
            move = move - unit(slope) * size * (2 / (step + 2))
            long = move.flatten(1).norm(dim=1).view_as(size).clamp(min=1e-300)
            move = move * (size / long).clamp(max=1)
    return best


def unit(v: Tensor) -> Tensor:
    """Rows scaled to norm 1."""
    return v / v.flatten(1).norm(dim=1).clamp(min=1e-300).view(-1, *[1] * (v.ndim - 1))


def margins(z: Tensor, y: Tensor) -> Tensor:
    """z_y minus the largest other logit."""
    own = z.gather(1, y[:, None])
    return own[:, 0] - z.scatter(1, y[:, None], -math.inf).amax(1)


def test_linear_classifier_is_exact() -> None:
    """The radius is the distance to the nearest decision plane."""
    weight, bias = draw(4, 6), draw(4, seed=1)
    graph = chain([Linear(weight, bias)], (6,))
    x = draw(50, 6, seed=2)
    z = graph(x)
    y = z.argmax(1)
    radius, margin = certified_radius(graph, x, y)
    for b in range(len(x)):
        others = [j for j in range(4) if j != y[b]]
        exact = min(
            float((z[b, y[b]] - z[b, j]) / (weight[y[b]] - weight[j]).norm()) for j in others
        )
        assert exact * (1 - 1e-5) <= float(radius[b]) <= exact
        assert float(margin[b]) == pytest.approx(float(margins(z, y)[b]), abs=1e-9)


def networks() -> list[Graph]:
    """A dense, a convolutional, and a residual network, the last without a linear end."""
    residual = [(Linear(draw(6, 6)), (0,), ""), (Relu(), (1,), ""), (Sum(), (0, 2), "")]
    conv = Conv(draw(3, 1, 3, 3), draw(3), (1, 1), (1, 1), (1, 1), 1)
    pooled = MaxPool((3, 3), (2, 2), (1, 1))
    return [
        chain([Linear(draw(12, 6), draw(12)), Relu(), Linear(draw(4, 12, seed=3))], (6,)),
        chain([conv, Relu(), pooled, Reshape((27,)), Linear(draw(4, 27, seed=4))], (1, 6, 6)),
        build(residual, (6,), abs, torch.zeros(1, dtype=torch.float64)),
    ]


@pytest.mark.parametrize("which", range(3))
def test_attacks_never_flip_inside_the_radius(which: int) -> None:
    """PGD on the sphere of the radius keeps a positive margin."""
    graph = networks()[which]
    x = draw(40, *graph.input_shape, seed=6)
    y = graph(x).argmax(1)
    radius, _ = certified_radius(graph, x, y)
    assert bool((radius > 0).all())
    assert bool((attack(graph, x, y, radius) > 0).all())


def test_attack_of_these_tests_can_flip() -> None:
    """Just outside the radius of a linear classifier it succeeds, so its silence counts."""
    graph = chain([Linear(draw(4, 6))], (6,))
    x = draw(20, 6, seed=2)
    y = graph(x).argmax(1)
    radius, _ = certified_radius(graph, x, y)
    assert bool((attack(graph, x, y, 1.001 * radius) < 0).all())


@pytest.mark.parametrize("tail", [[], [Relu()]])
def test_margin_over_constant_is_false(tail: list[Op]) -> None:
    """margin / L forgets sqrt(2): a perturbation shorter than it changes the class of z = x."""
    graph = chain([Linear(torch.eye(2, dtype=torch.float64)), *tail], (2,))
    x, y = torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([0])
    wrong = float(margins(graph(x), y)) / lipschitz(graph)[-1]
    move = torch.tensor([[-0.51, 0.51]], dtype=torch.float64)
    assert move.norm() < wrong
    assert graph(x + move).argmax(1).item() == 1
    assert float(certified_radius(graph, x, y)[0]) < float(move.norm())


def test_power_iteration_is_no_certificate() -> None:
    """A few steps from a random start miss the top direction, and a counterexample lies inside."""
    n = 400
    matrix = torch.eye(n, dtype=torch.float64)
    matrix[0, 0] = 2.0
    head = torch.zeros(2, n, dtype=torch.float64)
    head[0, 0], head[1, 0] = 1.0, -1.0
    graph = chain([Linear(matrix), Linear(head)], (n,))
    v = draw(n, 1, seed=0)
    for _ in range(2):
        v = matrix.T @ (matrix @ (v / v.norm()))
    estimate = float((matrix @ (v / v.norm())).norm())
    x, y = torch.zeros(1, n, dtype=torch.float64), torch.tensor([0])
    x[0, 0] = 1.0
    wrong = float(margins(graph(x), y)) / (2 * estimate)
    broken = x.clone()
    broken[0, 0] = -0.05
    assert float((broken - x).norm()) < wrong
    assert graph(broken).argmax(1).item() == 1
    assert float(certified_radius(graph, x, y)[0]) <= 1.0


def test_flattened_convolution_weight_gives_a_false_radius() -> None:
    """Forgetting that windows overlap (stride 1, padding) underestimates; an attack gets inside."""
    weight = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    conv = Conv(weight, None, (1, 1), (1, 1), (1, 1), 1)
    head = torch.stack([torch.ones(64), -torch.ones(64)]).double()
    graph = chain([conv, Reshape((64,)), Linear(head)], (1, 8, 8))
    x, y = torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64), torch.tensor([0])
    gap = float(margins(graph(x), y))
    wrong = gap / (float((head[0] - head[1]).norm()) * float(weight.norm()))
    flipped = -0.01 * torch.ones_like(x)
    assert float((flipped - x).norm()) < wrong
    assert graph(flipped).argmax(1).item() == 1
    assert float(certified_radius(graph, x, y)[0]) < float((flipped - x).norm())


def test_misclassified_and_ties_have_no_radius() -> None:
    """Another label than the prediction, or two equal logits, give 0."""
    graph = chain([Linear(torch.eye(3, dtype=torch.float64))], (3,))
    x = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
    assert certified_radius(graph, x, torch.tensor([1, 0]))[0].tolist() == [0.0, 0.0]
    assert bool((certified_radius(graph, x, torch.tensor([0, 2]))[0][1:] == 0).all())


def test_rounding_is_taken_off_in_float32() -> None:
    """A margin of a few units in the last place of large logits certifies nothing."""
    weight = torch.eye(2)
    graph = chain([Linear(weight, torch.tensor([1000.0, 1000.0]))], (2,), torch.float32)
    x = torch.tensor([[0.001, 0.0]])
    assert float(certified_radius(graph, x, torch.tensor([0]))[0]) == 0.0


def test_prepared_constants_serve_many_batches_until_weights_change() -> None:
    """Batches give what single inputs give; changed weights are refused."""
    weight = draw(3, 5)
    graph = chain([Linear(weight)], (5,))
    ready = prepare(graph)
    x = draw(7, 5, seed=1)
    y = graph(x).argmax(1)
    alone = torch.cat([ready.radius(x[b : b + 1], y[b : b + 1])[0] for b in range(7)])
    torch.testing.assert_close(ready.radius(x, y)[0], alone, rtol=1e-9, atol=1e-12)
    weight.mul_(2)
    with pytest.raises(ModelError, match="changed"):
        ready.radius(x, y)


def test_bad_inputs_are_refused() -> None:
    """Wrong dtype, wrong output, labels that do not exist."""
    graph = chain([Linear(draw(3, 5))], (5,))
    y = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ArgumentError, match="float32"):
        certified_radius(graph, torch.zeros(2, 5), y)
    with pytest.raises(ArgumentError, match="labels"):
        certified_radius(graph, torch.zeros(2, 5, dtype=torch.float64), y + 3)
    with pytest.raises(ModelError, match="classifier"):
        prepare(chain([Linear(draw(1, 5))], (5,)))


def test_logits_that_are_no_linear_map_part_along_the_diagonal() -> None:
    """z = relu(x) at (2, 1): both logits meet at (1.5, 1.5), nearer than a logit's own change of 1."""
    graph = chain([Relu()], (2,))
    radius, _ = certified_radius(graph, torch.tensor([[2.0, 1.0]]), torch.tensor([0]))
    assert float(radius) == pytest.approx(math.sqrt(0.5), rel=1e-4)
    assert float(radius) < math.sqrt(0.5)
