"""A network inside wrappers is captured as itself; what stands around it is still watched and replayed."""

import copy

import pytest
import torch
from tests.laws.networks import Function
from torch import nn
from torch.optim.swa_utils import AveragedModel

from certus.api import certify
from certus.bounding import Crown
from certus.core import ModelError
from certus.graph import trace
from certus.graph.wrappers import unwrapped
from certus.threats import Linf

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
X = torch.tensor([[0.2, 0.5, 0.7, 0.1], [0.9, 0.3, 0.4, 0.6]])


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()


class Logged(nn.Module):
    """A wrapper of a user's own."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)


class Renamed(nn.Module):
    """Takes one input, and may be given more."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, pixel_values=None, mask=None, *, scale=1.0, **rest):
        values = pixel_values if mask is None else pixel_values * mask
        return self.inner(values) * scale


WRAPPERS = {
    "DataParallel": nn.DataParallel,
    "AveragedModel": AveragedModel,
    "compiled": lambda m: torch.compile(m, backend="eager"),
    "compiled in place": lambda m: (m.compile(backend="eager"), m)[1],
    "any arguments": Logged,
    "keywords": Renamed,
    "several": lambda m: AveragedModel(nn.DataParallel(Logged(nn.DataParallel(m)))),
    "a wrapped part": lambda m: nn.Sequential(nn.DataParallel(m[:2]), m[2]),
    "traced": lambda m: torch.jit.trace(m, X),
    "exported in part": lambda m: nn.Sequential(torch.fx.symbolic_trace(m)),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapped_network_has_the_bounds_of_the_network(name):
    inner = net()
    wrapper = WRAPPERS[name](inner).eval()
    graph, region = trace(wrapper, X), Linf(0.1).region(X)
    assert graph.original is wrapper
    graph.refuse_changed()
    found, known = Crown()(graph, region), Crown()(trace(inner, X), region)
    assert torch.allclose(found.lower, known.lower, atol=1e-6)
    assert torch.allclose(found.upper, known.upper, atol=1e-6)
    y = inner(X).argmax(1)
    for threat in (Linf(0.001), Linf(0.9)):
        verdicts = [certify(m, X, y, threat).verdict for m in (wrapper, inner)]
        assert verdicts[0] == verdicts[1]


def part_of(wrapper):
    """The network inside, however deep."""
    return next(m for m in wrapper.modules() if isinstance(m, nn.Sequential))


CHANGES = {
    "weight": lambda w: setattr(part_of(w)[0], "weight", nn.Parameter(torch.rand(6, 4))),
    "layer": lambda w: part_of(w).__setitem__(1, nn.Tanh().eval()),
    "hook inside": lambda w: part_of(w).register_forward_hook(lambda m, a, out: out + 1),
    "hook outside": lambda w: w.register_forward_hook(lambda m, a, out: out + 1),
    "hook before": lambda w: w.register_forward_pre_hook(lambda m, a: (a[0] * 2,)),
    "network": lambda w: setattr(w, next(iter(w._modules)), nn.Linear(4, 3).eval()),
}


@pytest.mark.parametrize(
    "name", ["DataParallel", "AveragedModel", "compiled", "any arguments", "several"]
)
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_in_or_of_a_wrapper_is_noticed(name, change):
    wrapper = WRAPPERS[name](net()).eval()
    graph = trace(wrapper, X)
    CHANGES[change](wrapper)
    with pytest.raises(ModelError, match="changed since it was traced"):
        graph.refuse_changed()


def test_parameters_stay_those_of_the_network():
    wrapper = nn.DataParallel(net()).eval()
    graph, held = trace(wrapper, X), {id(p) for p in wrapper.parameters()}
    assert {id(t) for _, t in graph.tensors()} == held
    with torch.no_grad():
        wrapper.module[0].weight.mul_(1.5)
    assert torch.allclose(graph(X), wrapper(X), atol=1e-6)


@pytest.mark.parametrize("name", ["DataParallel", "AveragedModel", "compiled"])
def test_a_mere_wrapper_is_looked_through(name):
    wrapper = WRAPPERS[name](net()).eval()
    assert isinstance(unwrapped(wrapper), nn.Sequential)
    wrapper.forward = lambda x: x
    assert unwrapped(wrapper) is wrapper


@pytest.mark.parametrize("kind", ["hook", "hook before", "own class", "own forward"])
def test_a_wrapper_that_does_more_is_no_mere_wrapper(kind):
    class Doubled(nn.DataParallel):
        def forward(self, x):
            return 2 * super().forward(x)

    wrapper = (Doubled if kind == "own class" else nn.DataParallel)(net()).eval()
    if kind == "hook":
        wrapper.register_forward_hook(lambda m, args, out: out.clamp(-50, 50))
    if kind == "hook before":
        wrapper.register_forward_pre_hook(lambda m, args: (args[0].clamp(-50, 50),))
    if kind == "own forward":
        wrapper.forward = lambda x: wrapper.module(x.clamp(-50, 50))
    assert unwrapped(wrapper) is wrapper
    graph, far = trace(wrapper, X), 1e3 * X  # where random inputs do not reach
    assert torch.allclose(graph(far), wrapper(far), rtol=1e-5)
    assert not torch.allclose(graph(far), wrapper.module(far), rtol=1e-2)


MODES = {
    "no_grad": torch.no_grad,
    "enable_grad": torch.enable_grad,
    "on": lambda: torch.set_grad_enabled(True),
    "off": lambda: torch.set_grad_enabled(False),
    "inference": torch.inference_mode,
}


@pytest.mark.parametrize("name", MODES)
@torch.no_grad()
def test_regions_with_or_without_gradients_compute_the_same(name):
    def body(m, x):
        with MODES[name]():
            h = m.a(x).relu()
        return m.b(h)

    module = Function(body, a=nn.Linear(4, 5), b=nn.Linear(5, 3)).eval()
    assert torch.allclose(trace(module, X)(X), module(X), atol=1e-6)
    whole = copy.deepcopy(module)
    whole.body = MODES[name]()(lambda m, x: m.b(m.a(x).relu()))
    assert torch.allclose(trace(whole, X)(X), module(X), atol=1e-6)
