"""Capture: graphs equal their modules, parameters stay live, and what cannot be captured says why."""

import copy

import pytest
import torch
import torch.nn.functional as F
from tests.laws.networks import AFFINE, NETWORKS, Function, example, graph_of, make
from torch import nn

from certus.bounding import IBP, Crown
from certus.core import ArgumentError, ModelError, UnsupportedError
from certus.graph import trace
from certus.threats import Linf


@pytest.mark.parametrize("name", list(NETWORKS | AFFINE))
def test_the_graph_equals_the_module(name):
    graph, module = graph_of(name), make(name)
    for batch in (1, 2, 7):
        x = 3 * torch.randn(batch, *graph.input_shape).double()
        assert torch.allclose(graph(x), module(x.clone()), atol=1e-11)
    assert graph.dtype == torch.float64 and graph.output_shape == (3,)
    values = graph.values(x)
    assert [tuple(v.shape[1:]) for v in values] == [n.shape for n in graph.nodes]
    assert graph.summary().count("\n") == len(graph.nodes) - 1


LIVE = ["relu", "residual", "orthogonal", "tied", "normalised", "in-place", "functional", "conv1d"]


@pytest.mark.parametrize("name", LIVE)
def test_parameters_are_live(name):
    module = make(name)
    graph, x = trace(module, example(name)), example(name)
    before = graph(x).detach(), graph.fingerprint()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    assert torch.allclose(graph(x), module(x.clone()), atol=1e-11)
    assert float((graph(x) - before[0]).detach().abs().max()) > 1e-4
    assert graph.fingerprint() != before[1]
    for method in (IBP(), Crown()):
        module.zero_grad()
        method(graph, Linf(0.1).region(x)).lower.sum().backward()
        assert all(
            p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in module.parameters()
        )


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(lambda m, x: x * m.p, id="mul"),
        pytest.param(lambda m, x: x @ m.p.diag(), id="matmul"),
        pytest.param(lambda m, x: x + m.p, id="add"),
        pytest.param(lambda m, x: m.p + x, id="radd"),
        pytest.param(lambda m, x: x - m.p, id="sub"),
        pytest.param(lambda m, x: x / m.p, id="div"),
        pytest.param(lambda m, x: x + m.p.exp(), id="add-computed"),
        pytest.param(lambda m, x: x - m.p.exp(), id="sub-computed"),
        pytest.param(lambda m, x: x @ m.q * m.p, id="product"),
    ],
)
def test_a_changed_constant_changes_the_graph(body):
    module = Function(
        body, p=nn.Parameter(torch.rand(3) + 1), q=nn.Parameter(torch.rand(3, 3))
    ).eval()
    x = torch.rand(2, 3)
    with torch.no_grad():
        graph = trace(module, x)
        module.p.mul_(1.5), module.q.mul_(-2)
    assert torch.allclose(graph(x), module(x), atol=1e-5)
    graph(x).sum().backward()
    assert module.p.grad is not None


def test_cast_and_fingerprint():
    graph, x = graph_of("orthogonal"), example("orthogonal")
    single = graph.cast(torch.float32)
    assert single.dtype == torch.float32
    assert torch.allclose(single(x.float()).double(), graph(x), atol=1e-5)
    assert trace(make("relu"), example("relu")).fingerprint() == graph_of("relu").fingerprint()
    assert graph_of("relu").fingerprint() != graph_of("tied").fingerprint()


def test_the_fingerprint_covers_what_is_not_a_tensor():
    prints = []
    for slope in (0.1, 0.5):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(slope), nn.Linear(4, 3)).eval()
        prints.append(trace(net, torch.rand(2, 4)).fingerprint())
    assert prints[0] != prints[1]


def lines_of(error):
    text = str(error.value)
    assert "\n" not in text and len(text) < 900
    return text


def test_all_unsupported_operations_are_named_at_once_with_their_line():
    class Unusual(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x):
            h = torch.lgamma(self.a(x))
            return torch.cumprod(F.relu(torch.i0(h)), 1)

    with pytest.raises(UnsupportedError) as error:
        trace(Unusual().eval(), torch.rand(2, 4))
    text = lines_of(error)
    for part in (
        "aten.lgamma",
        "aten.i0",
        "aten.cumprod",
        "test_capture.py:",
        "h = torch.lgamma(self.a(x))",
    ):
        assert part in text


def _slots(x, dtype):
    """A scratch tensor of another type that the input is written into."""
    scratch = torch.zeros_like(x, dtype=dtype)
    scratch[:] = x
    return scratch


def _autocast(x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        product = x @ torch.eye(4)
    return product.float()


REFUSED = {
    "dropout": (
        lambda m, x: F.dropout(x, 0.5, training=True),
        UnsupportedError,
        "dropout in training",
    ),
    "prod": (lambda m, x: x.prod(1), UnsupportedError, "prod"),
    "running": (lambda m, x: x.cummax(1).values, UnsupportedError, "cummax"),
    "indices": (lambda m, x: x.max(1).indices.float(), UnsupportedError, "result 1 of aten.max"),
    "batch-maximum": (lambda m, x: x.amax(0, keepdim=True) + x, UnsupportedError, "batch"),
    "batch-softmax": (lambda m, x: x.softmax(0), UnsupportedError, "batch"),
    "batch-order": (lambda m, x: x.flip(0), UnsupportedError, "batch"),
    "batch-roll": (lambda m, x: x.roll(1, 0), UnsupportedError, "batch"),
    "batch-running": (lambda m, x: x.cumsum(0), UnsupportedError, "batch"),
    "batch-whole": (lambda m, x: x / x.sum(), UnsupportedError, "batch"),
    "batch-mean": (lambda m, x: x.sum(1, keepdim=True) / x.shape[0], UnsupportedError, "batch"),
    "batch-count": (lambda m, x: x * torch.full((4,), x.shape[0]), UnsupportedError, "batch"),
    "batch-range": (
        lambda m, x: x + torch.arange(x.shape[0]).unsqueeze(1),
        UnsupportedError,
        "along the batch",
    ),
    "batch-regrouped": (
        lambda m, x: x.view(-1).view(4, -1).transpose(0, 1),
        UnsupportedError,
        "batch",
    ),
    "batch-orders": (  # both are [4 * batch, 1], in different orders
        lambda m, x: (x.reshape(-1, 1) + x.T.reshape(-1, 1)).view(-1, 4),
        UnsupportedError,
        "moves the batch",
    ),
    "batch-gram": (lambda m, x: x @ x.T @ x, UnsupportedError, "batch"),
    "batch-weights": (lambda m, x: F.linear(x, x).sum(1), UnsupportedError, "batch"),
    "moved-out": (lambda m, x: x.unsqueeze(1).transpose(0, 1), ModelError, "in front"),
    "half": (lambda m, x: x.half().float(), UnsupportedError, "precision.*float16"),
    "bfloat": (lambda m, x: x.bfloat16().float(), UnsupportedError, "precision.*bfloat16"),
    "double": (lambda m, x: x.double().float(), UnsupportedError, "precision.*float64"),
    "double-constant": (
        lambda m, x: (x * torch.ones(4, dtype=torch.float64)).float(),
        UnsupportedError,
        "precision.*float64",
    ),
    "double-sum": (
        lambda m, x: x.sum(1, dtype=torch.float64).float(),
        UnsupportedError,
        "precision.*float64",
    ),
    "half-scratch": (
        lambda m, x: torch.zeros_like(x, dtype=torch.float16).copy_(x).float(),
        UnsupportedError,
        "precision.*float16",
    ),
    "half-slots": (
        lambda m, x: _slots(x, torch.bfloat16).float(),
        UnsupportedError,
        "precision.*bfloat16",
    ),
    "whole-slots": (lambda m, x: _slots(x, torch.int32).float(), UnsupportedError, "into int32"),
    "autocast": (lambda m, x: _autocast(x), UnsupportedError, "autocast"),
    "bits": (lambda m, x: x.view(torch.int32).float(), UnsupportedError, "view.dtype"),
    "floor-division": (lambda m, x: x // (x * x + 1), UnsupportedError, "floor division"),
    "index": (lambda m, x: x[:, m.p.long()], UnsupportedError, "from parameters"),
    "adaptive": (
        lambda m, x: F.adaptive_max_pool1d(x[:, None, [0, 1, 2, 3, 0]], 3),
        UnsupportedError,
        "windows that differ",
    ),
    "attention-dropout": (
        lambda m, x: F.scaled_dot_product_attention(*[x.unsqueeze(1)] * 3, dropout_p=0.5),
        UnsupportedError,
        "dropout",
    ),
    "power": (lambda m, x: (-2.0) ** x, UnsupportedError, "power of -2"),
    "dict": (lambda m, x: {"logits": x}, ModelError, "one tensor|no tuple or dict"),
    "batch-sum": (lambda m, x: x - x.mean(0, keepdim=True), UnsupportedError, "batch"),
    "batch-slice": (lambda m, x: x[1:], (UnsupportedError, ModelError), "batch"),
    "batch-flip": (lambda m, x: x.transpose(0, 1), ModelError, "no batch dimension in front"),
    "pair": (lambda m, x: (x, x + 1), ModelError, "one tensor"),
    "constant": (lambda m, x: m.p, ModelError, "does not depend|no batch"),
    "branch": (lambda m, x: x if x.sum() > 0 else -x, ModelError, "Python needs the values"),
    "batch-size": (lambda m, x: x.view(2, 2, 2).sum(2), ModelError, "fixed batch size|fails on"),
    "random": (lambda m, x: x + torch.rand_like(x), (UnsupportedError, ModelError), "rand"),
    "shape": (lambda m, x: x @ torch.ones(3, 2), ModelError, "fails on an input"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_one_line(case):
    body, kind, words = REFUSED[case]
    with pytest.raises(kind, match=words) as error:
        trace(Function(body, p=nn.Parameter(torch.ones(1))).eval(), torch.rand(2, 4))
    lines_of(error)


def test_training_mode_is_refused_and_named():
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    with pytest.raises(ModelError, match="training mode"):
        trace(net, torch.rand(2, 4))
    net.eval()[1].train()
    with pytest.raises(ModelError, match="part '1'"):
        trace(net, torch.rand(2, 4))
    plain = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)).eval()
    with pytest.raises(UnsupportedError, match="training mode"):
        trace(plain, torch.rand(2, 4))


def test_batch_statistics_would_make_the_value_depend_on_the_batch():
    """Mistake 7: in training mode there is no function of one input that could be certified."""
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).double()
    x = torch.rand(6, 4).double()
    wrong = copy.deepcopy(net).train()
    with torch.no_grad():
        assert float((wrong(x)[:2] - wrong(x[:2])).abs().max()) > 0.1
        assert torch.equal(net.eval()(x)[:2], net(x[:2]))
    graph = trace(net, x)
    bounds = IBP()(graph, Linf(0.0).region(x))
    assert torch.allclose(bounds.lower, net(x))
    assert not torch.allclose(bounds.lower, wrong(x), atol=1e-2)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_weights_and_inputs_are_refused(bad):
    net = nn.Sequential(nn.Linear(4, 3)).eval()
    with pytest.raises(ArgumentError):
        trace(net, torch.full((2, 4), bad))
    with pytest.raises(ModelError, match="fails on an input"):
        trace(net, torch.rand(2, 5))
    with pytest.raises(ModelError, match=r"torch\.nn\.Module"):
        trace(lambda x: x, torch.rand(2, 4))
    with torch.no_grad():
        net[0].weight[0, 0] = bad
    with pytest.raises(ModelError, match=r"0\.weight"):
        trace(net, torch.rand(2, 4))


def test_the_module_is_left_alone():
    module, x = make("in-place"), example("in-place")
    state = {k: v.clone() for k, v in module.state_dict().items()}
    graph = trace(module, x)
    assert all(torch.equal(v, module.state_dict()[k]) for k, v in state.items())
    assert graph.original is module and not module.training


# Beyond what comparison on random inputs can see: the limit is far outside their values.
ALIASES = {
    "base-after-view": lambda m, x: (h := m.a(x), h.view(-1, 2, 2).clamp_(-50, 50), h)[-1],
    "view-after-base": lambda m, x: (h := m.a(x), v := h.view(-1, 4), h.clamp_(-50, 50), v)[-1],
    "detached": lambda m, x: (h := m.a(x), F.dropout(h, 0.5, False).clamp_(-50, 50), h)[-1],
}


@pytest.mark.parametrize("case", ALIASES)
def test_in_place_through_an_alias_is_refused_or_right(case):
    module = Function(ALIASES[case], a=nn.Linear(4, 4)).eval()
    try:
        graph = trace(module, torch.rand(2, 4))
    except (ModelError, UnsupportedError):
        return
    x = 1e3 * torch.rand(2, 4)
    assert float(module(x).detach().abs().max()) == 50, "the limit must be met"
    assert torch.allclose(graph(x), module(x), atol=1e-3)


class Two(nn.Module):
    """Two inputs of different shapes."""

    def __init__(self):
        super().__init__()
        self.image, self.state = nn.Conv2d(1, 2, 2), nn.Linear(3, 8)

    def forward(self, image, state):
        return torch.relu(self.image(image).flatten(1) * self.state(state)).sum(1, keepdim=True)


def test_several_inputs_are_one_flat_input():
    module, image, state = Two().double().eval(), torch.rand(2, 1, 3, 3), torch.rand(2, 3)
    image, state = image.double(), state.double()
    graph = trace(module, (image, state))
    assert graph.input_shape == (12,)
    flat = torch.cat([image.flatten(1), state], 1)
    assert torch.allclose(graph(flat), module(image, state), atol=1e-12)
    assert torch.equal(graph.original(flat), module(image, state))
    assert all(
        torch.equal(a, b) for a, b in zip(graph.original.split(flat), (image, state), strict=True)
    )
    for method in (IBP(), Crown()):
        bounds = method(graph, Linf(0.1).region(flat))
        assert bool((bounds.lower <= graph(flat)).all() and (graph(flat) <= bounds.upper).all())
    graph(flat).sum().backward()
    assert module.state.weight.grad is not None
    with pytest.raises(ArgumentError, match="one batch size"):
        trace(module, (image, state[:1]))
    with pytest.raises(ModelError, match="training mode"):
        trace(Two(), (image, state))


def test_a_constant_that_is_the_same_along_the_batch_only_now_is_refused():
    """Rows of a parameter that are equal at capture may differ after training."""
    module = Function(lambda m, x: x + m.p[: x.shape[0]], p=nn.Parameter(torch.zeros(9, 4))).eval()
    with pytest.raises((UnsupportedError, ModelError)):
        trace(module, torch.rand(2, 4))
