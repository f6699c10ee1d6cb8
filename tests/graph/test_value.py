"""Evaluating a graph: the numbers of the module, although values are dropped and written over."""

import copy

import pytest
import torch
from torch import Tensor, nn

import certus
from certus.graph import trace


class Residual(nn.Module):
    """A value that an activation and a sum read, and views of it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
        self.last = nn.Linear(18, 3)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one(x)
        two = self.two(torch.relu(one))
        return self.last(torch.relu(one + two).flatten(1)) + self.last(one.flatten(1))


class Both(nn.Module):
    """The value before an activation is part of the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one(x)
        return torch.cat([torch.relu(one), one], 1)


class Viewed(nn.Module):
    """A view is read after the activation of what it is a view of."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(1, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one(x)
        seen = one.flatten(1)
        return torch.relu(one).flatten(1) + 2 * seen


NETS = {
    "residual": (Residual(), (2, 3, 3)),
    "both": (Both(), (4,)),
    "viewed": (Viewed(), (1, 4, 4)),
    "activation first": (nn.Sequential(nn.ReLU(), nn.Linear(4, 3), nn.ReLU()), (4,)),
    "norm": (nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.ReLU()), (4,)),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_numbers_are_those_of_the_module(name: str, context: type) -> None:
    module, shape = copy.deepcopy(NETS[name][0]).eval(), NETS[name][1]
    x = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    before, graph = x.clone(), trace(module, x)
    weights = copy.deepcopy(module.state_dict())
    with context():
        for _ in range(2):  # nothing that a call wrote over may be read by the next
            assert torch.equal(graph(x), module(x))
            assert torch.equal(graph(x), graph.values(x)[graph.output])
    assert torch.equal(x, before)
    assert all(torch.equal(value, weights[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("name", ["residual", "viewed"])
def test_gradients_are_those_of_the_module(name: str) -> None:
    module, shape = copy.deepcopy(NETS[name][0]).eval(), NETS[name][1]
    x = torch.randn(5, *shape, requires_grad=True)
    graph = trace(module, x.detach())
    ours, theirs = (torch.autograd.grad(f(x).square().sum(), x)[0] for f in (graph, module))
    assert torch.allclose(ours, theirs)


def test_a_value_is_dropped_after_its_last_use() -> None:
    """A chain of layers holds two values at a time, not all."""
    alive, most = set(), 0

    class Seen(torch.Tensor):
        """Counts its living instances."""

        def __del__(self) -> None:
            alive.discard(id(self))

    graph = certus.trace(nn.Sequential(*(nn.Tanh() for _ in range(9))).eval(), torch.zeros(1, 3))
    for node in graph.nodes[1:]:
        plain = node.op.forward

        def forward(*inputs: Tensor, plain=plain) -> Tensor:
            nonlocal most
            made = plain(*inputs).as_subclass(Seen)
            alive.add(id(made))
            most = max(most, len(alive))
            return made

        object.__setattr__(node.op, "forward", forward)
    with torch.no_grad():
        graph(torch.zeros(2, 3))
    assert 1 <= most <= 3
