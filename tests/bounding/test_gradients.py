"""Bounds are differentiable in the parameters: checked against finite differences."""

import pytest
import torch
from tests.laws.networks import example, make

from certus.bounding import IBP, Crown, crown_ibp
from certus.graph import trace
from certus.threats import L2, Linf

METHODS = {"ibp": IBP(), "crown-ibp": crown_ibp(), "crown": Crown()}


NAMES = ["relu", "residual", "maxpool-overlap", "orthogonal", "functional"]


def gradient_cases():
    for name in NAMES:
        for method in METHODS:
            yield pytest.param(name, method, id=f"{name}-{method}")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_the_slope(name, method):
    """Central differences along one direction of all parameters; ReLU nets, so away from kinks."""
    module, x = make(name), example(name)
    graph = trace(module, x)
    parameters = list(module.parameters())
    for norm in (Linf, L2):

        def value(norm=norm):
            bounds = METHODS[method](graph, norm(0.05).region(x))
            return bounds.lower.sum() + 0.3 * bounds.upper.square().sum()

        gradients = torch.autograd.grad(value(), parameters)
        direction = [torch.randn_like(p) for p in parameters]
        expected = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
        ends = []
        for sign in (1, -2):
            with torch.no_grad():
                for p, d in zip(parameters, direction, strict=True):
                    p.add_(1e-7 * sign * d)
                ends.append(float(value()))
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(1e-7 * d)
        assert abs(expected) > 1e-3
        assert (ends[0] - ends[1]) / 2e-7 == pytest.approx(expected, rel=1e-4)


def test_gradients_reach_inputs_and_eps():
    graph = trace(make("relu"), example("relu"))
    x = example("relu").requires_grad_()
    eps = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    for norm in (Linf, L2):
        lower = Crown()(graph, norm(eps, clip=None).region(x)).lower.sum()
        slopes = torch.autograd.grad(lower, [x, eps])
        assert all(bool(torch.isfinite(s).all()) for s in slopes)
        assert float(slopes[1]) < 0  # a larger eps never raises the bound here


@pytest.mark.parametrize(
    "name", ["relu", "leaky", "sigmoid", "tanh", "hardtanh", "maxpool-overlap"]
)
def test_width_zero_has_finite_gradients(name):
    """Training starts at eps 0: no NaN may come out of a division by a width or a norm."""
    module, x = make(name), example(name)
    graph = trace(module, x)
    for norm in (Linf, L2):
        for method in METHODS.values():
            bounds = method(graph, norm(0.0).region(x))
            found = torch.autograd.grad(bounds.lower.sum(), list(module.parameters()))
            assert all(bool(torch.isfinite(g).all()) for g in found)
