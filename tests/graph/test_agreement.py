"""The comparison of a graph with its original sees small differences, and no rounding."""

import pytest
import torch
from tests.graph.test_conversions import Function

import certus
from certus.graph.agreement import ORDINARY, difference, probes


def graph_of(body):
    return certus.trace(Function(body).eval(), torch.rand(1, 3))


def judged(graph, original):
    x = probes((3,), torch.zeros(()))
    return difference(graph, x, original(x), ORDINARY)


WRONG = {
    "half": lambda x: 8 * x.half().float() + 1000,
    "bfloat": lambda x: 8 * x.bfloat16().float() + 1000,
    "narrow": lambda x: 8 * torch.where(x.abs() < 32768, x, 0 * x) + 1000,
    "wrap": lambda x: 8 * torch.where(x.abs() < 2.0**31, x, -(2.0**31) + 0 * x) + 1000,
    "bytes": lambda x: 8 * torch.where(x.abs() < 256, x, x - 256) + 1000,
    "flush": lambda x: 8 * torch.where(x.abs() < 6e-8, 0 * x, x) + 1000 * x.sign(),
    "one-output": lambda x: 8 * x * torch.tensor([1.0, 1.0001, 1.0]) + 1000,
}


@pytest.mark.parametrize("name", WRONG)
def test_a_large_bias_hides_no_narrower_type(name):
    sign = name == "flush"
    graph = graph_of((lambda x: 8 * x + 1000 * x.sign()) if sign else (lambda x: 8 * x + 1000))
    assert judged(graph, graph.original) == 0
    if not sign:
        assert judged(graph, WRONG[name]) > 0


def test_rounding_is_no_difference():
    """Another order of a sum that cancels, in float32 and float64."""
    g = torch.Generator().manual_seed(0)
    weight = 1e3 * torch.randn(3, 400, generator=g)
    for dtype in (torch.float32, torch.float64):
        w = weight.to(dtype)
        body = lambda x, w=w: (x @ w + 1e4) @ w.T - 1e4 * w.T.sum(0)  # noqa: E731
        graph = certus.trace(Function(body).eval(), torch.rand(1, 3, dtype=dtype))
        x = probes((3,), torch.zeros((), dtype=dtype))
        other = ((x @ w.flip(1) + 1e4) @ w.flip(1).T) - 1e4 * w.flip(1).T.sum(0)
        assert not torch.equal(other, graph(x))
        assert difference(graph, x, other, ORDINARY) == 0
        assert difference(graph, x, other * 1.001, ORDINARY) > 0


@pytest.mark.parametrize(
    ("body", "other"),
    [
        (torch.round, lambda x: (x + 0.5).floor()),  # halves
        (torch.floor, lambda x: x.ceil() - 1),  # whole numbers
        (torch.sign, lambda x: 2 * (x >= 0).float() - 1),  # zero
        (lambda x: (x > 0).float(), lambda x: (x >= 0).float()),
        (torch.floor, lambda x: torch.where(x.abs() < 128, x.floor(), x.floor() - 256)),
    ],
)
def test_jumps_are_compared_away_from_them_and_at_them(body, other):
    graph = graph_of(body)
    assert judged(graph, graph.original) == 0
    assert judged(graph, other) > 0


def test_at_a_jump_rounding_may_choose_the_side():
    """0.1 x is not a tenth: after such a product both values at a jump are right, elsewhere one is."""
    graph = graph_of(lambda x: (x / 0.1).floor())
    assert judged(graph, lambda x: (x * (1 / 0.1)).floor()) == 0
    assert judged(graph, lambda x: (x * 10.01).floor()) > 0


def test_values_that_are_not_finite_say_nothing():
    graph = graph_of(lambda x: x + 1)
    x = probes((3,), torch.zeros(()))
    assert difference(graph, x, torch.full_like(x, float("nan")), ORDINARY) is None
    half = torch.where(torch.arange(len(x))[:, None] % 2 == 0, float("nan"), x + 1)
    assert difference(graph, x, half, ORDINARY) == 0
