"""A graph notices that its module has changed, whatever changed, and follows its parameters."""

import copy
import functools
import pickle
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from certus.api import bounds, certify
from certus.core import ModelError
from certus.graph import trace
from certus.smoothing import Gaussian, Smoothed
from certus.threats import Linf
from certus.verifiers import Milp

SLOPE = 2.0
SETTINGS = types.SimpleNamespace(slope=1.5, deep={"most": [1.0, 2.0]})


def bend(x):
    return x * SLOPE + SETTINGS.slope


class Config:
    """A plain object that a module holds."""

    def __init__(self):
        self.gain, self.table = 1.0, np.array([1.0, 2.0, 3.0])


class Net(nn.Module):
    """Reads from everywhere."""

    factor = 1.0

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 3)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator))
        self.register_buffer("shift", torch.zeros(4))
        self.register_buffer("order", torch.tensor([2, 0, 1]))
        self.plain = torch.tensor(0.5)
        self.most = 40.0
        self.config, self.steps = Config(), [1.0, {"power": 1}]
        self.last_seen, self.name = None, "net"
        extra = 0.25
        self.bent = lambda x: bend(x) + extra
        self.added = functools.partial(torch.add, other=1.0)

    def tail(self, x):
        return self.last(x) * self.factor

    def forward(self, x):
        x = self.first(x[:, self.order]) + self.shift
        x = self.bent(x.clamp(-self.most, self.most).relu()) * self.config.gain
        x = x + float(self.config.table[1]) * self.plain
        for step in self.steps:
            x = x * (step["power"] if isinstance(step, dict) else step)
        return self.tail(self.added(x))


def net():
    return Net().eval()


def moved(module, name, value):
    setattr(module, name, value)


def in_closure(module):
    def shifted(extra):
        return lambda x: bend(x) + extra

    module.bent = shifted(0.5)


def swap_cell(module):
    cells = dict(zip(module.bent.__code__.co_freevars, module.bent.__closure__, strict=True))
    cells["extra"].cell_contents = 7.0


def patched(target, name, value):
    """A change outside of the module, undone by the fixture."""
    return lambda module, monkeypatch: monkeypatch.setattr(target, name, value)


def write(tensor, value):
    with torch.no_grad():
        tensor.copy_(value)


CHANGES = {
    "number": lambda m: moved(m, "most", 50.0),
    "number of the class": lambda m: moved(m, "factor", 3.0),
    "deep number": lambda m: m.steps[1].update(power=2),
    "list": lambda m: m.steps.append(2.0),
    "object": lambda m: moved(m.config, "gain", 2.0),
    "array": lambda m: m.config.table.__setitem__(1, 5.0),
    "buffer": lambda m: moved(m, "shift", torch.ones(4)),
    "buffer read at capture": lambda m: write(m.order, torch.tensor([0, 1, 2])),
    "plain tensor": lambda m: moved(m, "plain", torch.tensor(0.75)),
    "weight": lambda m: moved(m.last, "weight", nn.Parameter(m.last.weight.detach().clone())),
    "bias gone": lambda m: moved(m.last, "bias", None),
    "load by assignment": lambda m: m.load_state_dict(
        {k: v.clone() for k, v in m.state_dict().items()}, assign=True
    ),
    "part": lambda m: moved(m, "first", nn.Linear(3, 4).eval()),
    "part of another kind": lambda m: moved(m, "last", nn.Sequential(m.last, nn.ReLU()).eval()),
    "function": in_closure,
    "cell": swap_cell,
    "partial": lambda m: moved(m, "added", functools.partial(torch.add, other=2.0)),
    "method": lambda m: moved(m, "tail", lambda x: m.last(x) + 1),
    "forward": lambda m: moved(m, "forward", lambda x: m.last(m.first(x))),
    "hook": lambda m: m.first.register_forward_hook(lambda _, args, out: out + 1),
    "hook before": lambda m: m.last.register_forward_pre_hook(lambda _, args: (args[0] * 2,)),
    "parametrization": lambda m: parametrizations.weight_norm(m.last).eval(),
    "pruning": lambda m: prune.l1_unstructured(m.first, "weight", 2),
    "precision": lambda m: m.double(),
}
OUTSIDE = {
    "global": patched(__import__(__name__, fromlist=["_"]), "SLOPE", 3.0),
    "deep global": patched(SETTINGS, "slope", 2.5),
    "function of a global": patched(__import__(__name__, fromlist=["_"]), "bend", lambda x: x),
    "class": patched(Net, "tail", lambda self, x: self.last(x) + 1),
    "number of the class itself": patched(Net, "factor", 4.0),
    "library": patched(nn.Linear, "forward", lambda self, x: x @ self.weight.T),
}
HARMLESS = {
    "nothing": lambda m: None,
    "training": lambda m: write(m.first.weight, m.first.weight * 1.5),
    "step": lambda m: moved(m.last.weight, "data", m.last.weight.data + 0.5),
    "gradients": lambda m: m.requires_grad_(False),
    "mode and back": lambda m: m.train().eval(),
    "buffer in place": lambda m: write(m.shift, torch.ones(4)),
    "name": lambda m: moved(m, "name", "other"),
    "one more attribute": lambda m: moved(m, "epoch", 7),
    "dtype and back": lambda m: m.to(torch.float32),
    "hook that only looks": lambda m: m.first.register_forward_hook(lambda *args: None),
}
X = torch.tensor([[0.2, 0.5, 0.7]])
Y = torch.tensor([0])

ENTRIES = {
    "certify": lambda g: certify(g, X, Y, Linf(0.01), method="ibp"),
    "bounds": lambda g: bounds(g, X, Linf(0.01)),
    "smoothed": lambda g: Smoothed(g, Gaussian(0.1), 3).predict(X, 10),
    "milp": lambda g: Milp(g, Linf(0.01).region(X)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_is_noticed(name):
    module = net()
    graph = trace(module, X)
    CHANGES[name](module)
    with pytest.raises(ModelError, match=r"certus\.trace again") as said:
        graph.refuse_changed()
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_asks(entry):
    """The change shows far away from the input alone."""
    module = net()
    graph = trace(module, X)
    module.most = 50.0
    torch.testing.assert_close(graph(X), module(X))
    with pytest.raises(ModelError, match=r"\(most\); call certus\.trace again"):
        ENTRIES[entry](graph)


@pytest.mark.parametrize("name", OUTSIDE)
def test_changes_outside_of_the_module_are_noticed(name, monkeypatch):
    module = net()
    graph = trace(module, X)
    OUTSIDE[name](module, monkeypatch)
    with pytest.raises(ModelError, match=r"certus\.trace again"):
        graph.refuse_changed()
    monkeypatch.undo()
    graph.refuse_changed()


@pytest.mark.parametrize("name", HARMLESS)
def test_what_changes_no_answer_is_none(name):
    module = net()
    graph = trace(module, X)
    HARMLESS[name](module)
    for entry in ("certify", "bounds", "smoothed"):
        ENTRIES[entry](graph)
    torch.testing.assert_close(graph(X), module(X))


def test_a_capture_made_anew_is_remembered(monkeypatch):
    module = net()
    graph = trace(module, X)
    module.epoch = 1
    graph.refuse_changed()
    monkeypatch.setattr(graph.source, "_again", None)
    graph.refuse_changed()
    module.epoch = 2
    with pytest.raises(TypeError):
        graph.refuse_changed()


def test_what_calls_change_is_left_out(monkeypatch):
    """A module that keeps its features is not captured anew each time."""

    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.features, self.calls = nn.Linear(3, 3), None, 0

        def forward(self, x):
            self.calls += 1
            self.features = self.layer(x)
            return self.features

    module = Keeps().eval()
    graph = trace(module, X)
    monkeypatch.setattr(graph.source, "_again", None)
    for _ in range(3):
        module(X)
        ENTRIES["certify"](graph)


def test_equal_values_of_another_tensor_do_not_follow():
    """A new weight of equal values would part from the graph with the next step of training."""
    module = net()
    graph = trace(module, X)
    module.first.weight = nn.Parameter(module.first.weight.detach().clone())
    with pytest.raises(ModelError, match=r"first\.weight"):
        graph.refuse_changed()


def test_a_switch_to_another_layer_of_equal_values_is_noticed():
    """The layer that now answers would part from the graph as soon as it is trained."""

    class Switched(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
            self.layers[1].load_state_dict(self.layers[0].state_dict())
            self.which = 0

        def forward(self, x):
            return self.layers[self.which](x)

    module = Switched().eval()
    graph = trace(module, X)
    module.which = 1
    with pytest.raises(ModelError, match="which"):
        graph.refuse_changed()


def test_expressions_that_are_equal_by_chance_are_told_apart():
    """A product with a factor that is zero now, and will be trained."""

    class Low(nn.Module):
        scale = 1.0

        def __init__(self):
            super().__init__()
            self.weight, self.a = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(1, 3))
            self.b = nn.Parameter(torch.zeros(3, 1))

        def forward(self, x):
            return nn.functional.linear(x, self.weight + self.scale * (self.b @ self.a))

    module = Low().eval()
    graph = trace(module, X)
    module.scale = 2.0
    with pytest.raises(ModelError, match="again"):
        graph.refuse_changed()


def test_a_copy_watches_its_own_module():
    module = nn.Sequential(nn.Linear(3, 3), nn.ReLU()).eval()
    graph = trace(module, X)
    other = copy.deepcopy(graph)
    other.original[1] = nn.Tanh()
    graph.refuse_changed()
    with pytest.raises(ModelError, match="again"):
        other.refuse_changed()


def test_outputs_that_are_not_finite_excuse_no_others():
    module = nn.Linear(3, 3).eval()
    graph = replace(trace(module, X), source=None)

    def original(x):
        return module(x) + torch.where(x[:, :1] > 0.205, torch.tensor([torch.inf, 0.0, 50.0]), 0.0)

    graph = replace(graph, original=original)
    with pytest.raises(ModelError, match="again"):
        certify(graph, X, Y, Linf(0.01), method="ibp")


def test_copies_know_nothing_and_parts_all():
    module = nn.Sequential(nn.Linear(3, 3), nn.ReLU()).eval()
    graph = trace(module, X)
    module[0].extra = 1.0
    for other in (copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))):
        other.refuse_changed()
        torch.testing.assert_close(other(X), module(X))
    module[0] = nn.Linear(3, 3).eval()
    for other in (graph, graph.resolved(), graph.upto(1), graph.cast(torch.float64)):
        with pytest.raises(ModelError, match="again"):
            other.refuse_changed()


def test_several_inputs():
    class Two(nn.Module):
        scale = 1.0

        def forward(self, a, b):
            return a * self.scale + b

    module = Two().eval()
    graph = trace(module, (X, X))
    graph.refuse_changed()
    module.scale = 2.0
    with pytest.raises(ModelError, match="again"):
        graph.refuse_changed()
