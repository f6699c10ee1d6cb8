"""What a module holds beside its parameters and reads in its forward pass is seen when it changes."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from certus.core import ModelError
from certus.graph import trace

X = torch.tensor([[0.2, 0.5, 0.7]])


def moved(module, name, value):
    setattr(module, name, value)


class Reads(nn.Module):
    """A forward pass over something that is no parameter, made by the case."""

    def __init__(self, held, read):
        super().__init__()
        self.linear, self.held, self.read = nn.Linear(3, 3), held, read
        self.cache = None

    def forward(self, x):
        return self.linear(x) * self.read(self)


class Listed(list):
    """A list with an attribute."""


def lazy(m):
    if m.cache is None:
        m.cache = m.linear.weight.detach().clone()
    return m.cache.sum()


def counted(m):
    m.held[0] += 1
    return m.held[1]


listed = Listed()
listed.gain = 2.0
NORMAL = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
# what is held, how it is read, and how it is changed
HELD = {
    "cache of the first call": (None, lazy, lambda m: moved(m, "cache", torch.ones(3, 3))),
    "settings beside a counter": ([0, 2.0], counted, lambda m: m.held.__setitem__(1, 3.0)),
    "tensor read as a number": (
        torch.tensor(2.0),
        lambda m: float(m.held),
        lambda m: m.held.data.fill_(3.0),
    ),
    "through numpy": (
        torch.tensor([2.0, 1.0]),
        lambda m: m.held.tolist()[0],
        lambda m: m.held.numpy().__setitem__(0, 3.0),
    ),
    "array of objects": (
        np.array([2.0, "a"], dtype=object),
        lambda m: m.held[0],
        lambda m: m.held.__setitem__(0, 3.0),
    ),
    "bytes": (bytearray([2]), lambda m: m.held[0], lambda m: m.held.__setitem__(0, 3)),
    "keys alike": ({1: 2.0, "1": 5.0}, lambda m: m.held[1], lambda m: m.held.update({1: 3.0})),
    "attribute of a list": (listed, lambda m: m.held.gain, lambda m: moved(m.held, "gain", 3.0)),
    "bound lookup": (
        {"a": 2.0}.get,
        lambda m: m.held("a"),
        lambda m: m.held.__self__.update(a=3.0),
    ),
    "distribution": (
        NORMAL,
        lambda m: m.held.scale,
        lambda m: moved(m.held, "scale", torch.tensor(3.0)),
    ),
}


@pytest.mark.parametrize("name", HELD)
def test_what_a_module_holds_and_reads_is_noticed(name):
    held, read, change = HELD[name]
    module = Reads(copy.deepcopy(held), read).eval()
    graph = trace(module, X)
    graph.refuse_changed()
    change(module)
    with pytest.raises(ModelError, match="again"):
        graph.refuse_changed()


def test_what_lies_beyond_the_entries_is_captured_anew():
    module = nn.Sequential(nn.Sequential(nn.Linear(3, 3), nn.ReLU()))
    module.names = {f"word {i}": [i] for i in range(15_000)}
    graph = trace(module.eval(), X)
    graph.refuse_changed()
    module[0][1] = nn.Tanh()
    with pytest.raises(ModelError, match="again"):
        graph.refuse_changed()
